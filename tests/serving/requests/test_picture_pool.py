from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.catalog import PublicModel, build, scan
from serving.errors import Code, ServingError
from serving.observing.metrics import Metrics
from serving.pb import image_generation_pb2 as pb
from serving.requests.picture_pool import PicturePool


@pytest.fixture
def pool() -> Iterator[PicturePool]:
    opened = PicturePool(2, Metrics(CollectorRegistry()))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def translator(tiny_repository: Path) -> PublicModel:
    return build(scan(tiny_repository)).models["tiny_translator"]


def square(side: int) -> pb.Image:
    return pb.Image(
        data=bytes(side * side * 3), format=pb.IMAGE_FORMAT_RAW_U8, width=side, height=side, channels=3
    )


async def test_the_images_of_a_request_share_the_room_for_pixels(
    pool: PicturePool, translator: PublicModel
) -> None:
    graph = translator.first
    assert len(await pool.decode([square(8)] * 4, translator, graph, 4 * 64)) == 4
    with pytest.raises(ServingError, match="8×8, 64 pixels, and there is room for 32") as error:
        await pool.decode([square(4)] * 2 + [square(8)], translator, graph, 64)
    assert error.value.field == "images[2]"


@pytest.mark.parametrize("side", [4, 64])  # few values and many
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_values_that_are_not_finite_are_no_picture(
    pool: PicturePool, translator: PublicModel, value: float, side: int
) -> None:
    fine, broken = np.zeros((2, 3, side, side), np.float32)
    broken[0, 0, 0] = value
    for images in ([fine, broken], np.stack([fine, broken])):
        with pytest.raises(ServingError, match="image 1 came out with values that are not finite") as error:
            await pool.encode(images, translator.first, pb.IMAGE_FORMAT_PNG)
        assert error.value.code == Code.INTERNAL


async def test_values_whose_squares_are_not_finite_are_a_picture(
    pool: PicturePool, translator: PublicModel
) -> None:
    bright = np.full((1, 3, 4, 4), 1e30, np.float32)
    (image,) = await pool.encode(bright, translator.first, pb.IMAGE_FORMAT_RAW_U8)
    assert image.data == b"\xff" * 48


async def test_images_of_every_kind_are_laid_on_one_sheet(pool: PicturePool) -> None:
    grey = pb.Image(data=bytes(64), format=pb.IMAGE_FORMAT_RAW_U8, width=8, height=8, channels=1)
    sheet = await pool.sheet([grey, square(8)], pb.IMAGE_FORMAT_RAW_U8)
    assert len(sheet) == (64 + 4) * (2 * 66 + 2) * 3


async def test_a_few_raw_pixels_are_encoded_at_once_and_anything_more_in_a_thread(
    pool: PicturePool, translator: PublicModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_threads: list[int] = []
    run = pool.run

    async def watched(function: Any, images: Any, *arguments: Any) -> Any:
        in_threads.append(len(images))
        return await run(function, images, *arguments)

    monkeypatch.setattr(pool, "run", watched)
    few, many = np.zeros((2, 3, 8, 8), np.float32), np.zeros((3, 3, 128, 128), np.float32)
    at_once = await pool.encode(few, translator.first, pb.IMAGE_FORMAT_RAW_U8)
    assert in_threads == []
    assert [image.data for image in at_once] == [bytes([128]) * 192] * 2
    await pool.encode(few, translator.first, pb.IMAGE_FORMAT_PNG)
    await pool.encode(many, translator.first, pb.IMAGE_FORMAT_RAW_U8)
    assert in_threads == [2, 3]

"""The same catalogue and the same answers over every backend."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from serving.errors import Code, ServingError
from serving.pb import image_generation_pb2 as pb
from serving.samplers import SAMPLERS
from serving.service import RequestContext, Service

CONTEXT = RequestContext()
DRAWING = ("tiny_gan", "tiny_vae", "tiny_gaussian", "tiny_latent")
RAW = pb.IMAGE_FORMAT_RAW_U8


async def draw(service: Service, model: str, **fields: Any) -> list[bytes]:
    request = pb.GenerateImagesRequest(model=model, format=RAW, **fields)
    return data((await service.generate_images(request, CONTEXT)).images)


def data(images: Sequence[pb.Image]) -> list[bytes]:
    return [image.data for image in images]


async def whole_catalogue(service: Service) -> pb.ListModelsResponse:
    """The catalogue once the older versions are loaded too."""
    async with asyncio.timeout(30):
        while True:
            models = await service.list_models()
            states = {status.state for model in models.models for status in model.version_status}
            if states == {pb.VERSION_STATE_READY}:
                break
            await asyncio.sleep(0.02)
    for model in models.models:
        model.has_card = False  # Triton shows no files
    return models


async def test_the_catalogue_is_the_same(service: Service, embedded: Service) -> None:
    assert await whole_catalogue(service) == await whole_catalogue(embedded)


@pytest.mark.parametrize("model", DRAWING)
async def test_a_seed_draws_the_same_bytes(service: Service, embedded: Service, model: str) -> None:
    assert await draw(service, model, seed=7, count=5) == await draw(embedded, model, seed=7, count=5)


async def test_a_seed_draws_the_same_bytes_under_every_sampler_in_a_mixed_load(
    service: Service, embedded: Service
) -> None:
    asked: list[dict[str, Any]] = [
        {"sampler": sampler, "seed": seed, "steps": 2 + seed, "count": 1 + seed, "guidance_scale": 1.0 + seed}
        for sampler in SAMPLERS
        for seed in range(3)
    ]
    alone = [await draw(embedded, "tiny_gaussian", **fields) for fields in asked]
    together = await asyncio.gather(*(draw(service, "tiny_gaussian", **fields) for fields in asked))
    assert together == alone


async def test_pictures_are_carried_to_the_same_bytes(service: Service, embedded: Service) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3), np.uint8)
    images = [pb.Image(data=each.tobytes(), format=RAW, width=20, height=12, channels=3) for each in pixels]
    for direction in ("a_to_b", "b_to_a"):
        request = pb.TranslateImagesRequest(
            model="tiny_translator", images=images, direction=direction, format=RAW
        )
        mine = await service.translate_images(request, CONTEXT)
        assert data(mine.images) == data((await embedded.translate_images(request, CONTEXT)).images)


async def test_pictures_are_encoded_and_decoded_to_the_same_bytes(
    service: Service, embedded: Service
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    images = [pb.Image(data=each.tobytes(), format=RAW, width=8, height=8, channels=1) for each in pixels]
    encode = pb.EncodeImagesRequest(model="tiny_vae", images=images, class_id=1)
    latents = (await service.encode_images(encode, CONTEXT)).latents
    assert list(latents) == list((await embedded.encode_images(encode, CONTEXT)).latents)
    decode = pb.DecodeLatentsRequest(model="tiny_vae", latents=latents, class_id=1, format=RAW)
    mine, other = [(await each.decode_latents(decode, CONTEXT)).images for each in (service, embedded)]
    assert data(mine) == data(other)


async def test_a_cancelled_request_leaves_and_others_never_notice(service: Service) -> None:
    expected = await draw(service, "tiny_gaussian", seed=3, steps=20)
    long = asyncio.create_task(draw(service, "tiny_gaussian", seed=1, count=64, steps=200))
    mates = [asyncio.create_task(draw(service, "tiny_gaussian", seed=3, steps=20)) for _ in range(2)]
    await asyncio.sleep(0.05)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert [await mate for mate in mates] == [expected, expected]


async def test_a_deadline_that_passes_is_said(service: Service) -> None:
    context = RequestContext(deadline=asyncio.get_running_loop().time() + 0.1)
    request = pb.GenerateImagesRequest(model="tiny_gaussian", count=256, steps=200)
    with pytest.raises(ServingError) as error:
        await service.generate_images(request, context)
    assert error.value.code in (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)

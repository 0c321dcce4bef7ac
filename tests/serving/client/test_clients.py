"""Both clients against a gateway: the same answers, pictures as PIL and numpy, errors with code and field."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.client import (
    Arithmetic,
    AsyncClient,
    AtelierError,
    Client,
    Images,
    Interpolation,
    Progress,
    Traversal,
)
from serving.client.gateway import Gateway


@pytest.fixture
def client(running_gateway: Gateway):
    with Client(running_gateway.grpc_address, timeout=60) as opened:
        yield opened


def test_models_are_told_by_name(client: Client):
    names = [model.name for model in client.models()]
    assert names == sorted(names)
    assert list(client.model("tiny_gan").class_labels) == ["zero", "one", "two"]


def test_generated_images_are_pictures_and_arrays_that_their_seed_gives_again(client: Client):
    images = client.generate("tiny_gan", count=3, class_label="two")
    assert [image.size for image in images] == [(8, 8)] * 3
    assert images.arrays.shape == (3, 8, 8, 1)
    assert images.arrays.dtype == np.uint8
    again = client.generate("tiny_gan", count=3, class_id=2, seed=images.run.seed)
    np.testing.assert_array_equal(again.arrays, images.arrays)


def test_a_stream_tells_progress_and_ends_with_the_images(client: Client):
    *progress, last = client.stream("tiny_gaussian", count=2, seed=1, steps=6, preview_every=2)
    assert isinstance(last, Images)
    assert all(isinstance(event, Progress) for event in progress)
    assert progress[-1].step == progress[-1].steps == 6
    assert {len(event.previews) for event in progress} == {0, 2}
    np.testing.assert_array_equal(
        last.arrays, client.generate("tiny_gaussian", count=2, seed=1, steps=6).arrays
    )


def test_pictures_are_taken_as_pil_array_file_and_bytes(client: Client, tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    file = tmp_path / "in.png"
    Image.fromarray(array).save(file)
    forms = [Image.fromarray(array), array, file, file.read_bytes()]
    translated = client.translate("tiny_translator", forms, direction="a_to_b")
    np.testing.assert_array_equal(translated.arrays, np.stack([255 - array] * 4))
    assert len(client.translate("tiny_translator", array, direction="a_to_b")) == 1


def test_a_latent_decodes_to_what_was_encoded(client: Client):
    picture = np.full((8, 8), 128, np.uint8)
    picture[0, :4] = [100, 120, 140, 160]
    latents = client.encode("tiny_vae", picture, class_label="one")
    assert latents.shape == (1, 4)
    decoded = client.decode("tiny_vae", latents, class_label="one").arrays[0, 0, :4, 0]
    np.testing.assert_allclose(decoded.astype(int), picture[0, :4], atol=1)


def test_walks_go_from_point_to_point(client: Client):
    ends = client.explore("tiny_vae", Interpolation(start=1, end=2), count=5, class_id=0)
    assert len(ends) == 5
    middle = ends.latents[2]
    back = client.explore(
        "tiny_vae",
        Interpolation(start=ends.latents[0], end=ends.latents[4], linear=True),
        count=3,
        class_id=0,
    )
    np.testing.assert_allclose(back.latents[1], (ends.latents[0] + ends.latents[4]) / 2, atol=1e-6)
    along = client.explore(
        "tiny_vae", Traversal(start=middle, dimension=1, low=-1, high=1), count=3, class_id=0
    )
    np.testing.assert_allclose(along.latents[:, 1], [-1, 0, 1])
    total = client.explore("tiny_vae", Arithmetic(plus=[1, 2], minus=[2]), class_id=0)
    np.testing.assert_allclose(total.latents[0], ends.latents[0], atol=1e-6)


def test_a_refusal_has_its_code_and_field(client: Client):
    with pytest.raises(AtelierError, match="eleven") as caught:
        client.generate("tiny_gan", class_label="eleven")
    assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", "class_label")
    with pytest.raises(AtelierError) as caught:
        list(client.stream("tiny_gaussian", sampler="heum"))
    assert caught.value.field == "sampler"
    with pytest.raises(AtelierError) as caught:
        client.model("tiny_gam")
    assert (caught.value.code, caught.value.field) == ("NOT_FOUND", "model")


def test_what_cannot_be_sent_is_refused_at_once(client: Client):
    with pytest.raises(ValueError, match="give one"):
        client.generate("tiny_gan", class_label="one", class_id=1)
    with pytest.raises(ValueError, match=r"float64.*give uint8"):
        client.translate("tiny_translator", np.zeros((8, 8, 3)))


def test_where_no_gateway_is_the_error_says_how_to_start_one():
    with Client("127.0.0.1:9") as client, pytest.raises(AtelierError, match=r"127\.0\.0\.1:9.*atelier serve"):
        client.models()


async def test_the_async_client_gives_the_same(client: Client, running_gateway: Gateway):
    picture = Image.new("RGB", (8, 8), "red")
    async with AsyncClient(running_gateway.grpc_address) as asynchronous:
        assert [model.name for model in await asynchronous.models()] == [m.name for m in client.models()]
        assert (await asynchronous.model("tiny_gan")) == client.model("tiny_gan")
        images = await asynchronous.generate("tiny_gan", count=2, seed=4)
        np.testing.assert_array_equal(images.arrays, client.generate("tiny_gan", count=2, seed=4).arrays)
        events = [event async for event in asynchronous.stream("tiny_gaussian", seed=1, steps=4)]
        assert isinstance(events[-1], Images)
        translated = await asynchronous.translate("tiny_translator", picture, direction="a_to_b")
        assert translated[0].getpixel((0, 0)) == (0, 255, 255)
        latents = await asynchronous.encode("tiny_vae", picture.convert("L"), class_id=0)
        assert len(await asynchronous.decode("tiny_vae", latents, class_id=0)) == 1
        walk = Interpolation(start=latents[0], end=picture.convert("L"))
        assert len(await asynchronous.explore("tiny_vae", walk, count=3, class_id=0)) == 3
        with pytest.raises(AtelierError) as caught:
            await asynchronous.generate("tiny_gan", class_label="eleven")
        assert caught.value.field == "class_label"


def test_the_client_needs_no_server_nor_engine():
    """What a plain `pip install atelier` has is enough."""
    code = (
        "import sys, serving.client, serving.client.command\n"
        "heavy = {'starlette', 'uvicorn', 'onnxruntime', 'pydantic', 'prometheus_client', 'tritonclient'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

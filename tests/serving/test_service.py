"""The service on tiny models: what it answers, and that it answers the same under load."""

import asyncio
import io
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import tiny_graphs
from PIL import Image
from prometheus_client import CollectorRegistry

from serving.errors import Code, ServingError
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.samplers import SAMPLERS
from serving.service import RequestContext, Service
from serving.settings import Settings

OpenService = Callable[..., AbstractAsyncContextManager[Service]]

CONTEXT = RequestContext()
RAW = pb.IMAGE_FORMAT_RAW_U8
DRAWING = ("tiny_gan", "tiny_vae", "tiny_gaussian", "tiny_latent")


async def generate(service: Service, model: str, **fields: Any) -> pb.GenerateImagesResponse:
    return await service.generate_images(pb.GenerateImagesRequest(model=model, **fields), CONTEXT)


def pixels(images: Sequence[pb.Image]) -> np.ndarray:
    """Raw images as one array [count, height, width, channels]."""
    shape = (len(images), images[0].height, images[0].width, images[0].channels)
    return np.frombuffer(b"".join(image.data for image in images), np.uint8).reshape(shape)


def raw(array: np.ndarray) -> pb.Image:
    height, width, channels = array.shape
    return pb.Image(data=array.tobytes(), format=RAW, width=width, height=height, channels=channels)


async def version_is_ready(service: Service, version: int) -> None:
    """Waits for an older version of the tiny GAN: the gateway is ready before it."""
    for _ in range(1000):
        try:
            await generate(service, "tiny_gan", version=version)
        except ServingError:
            await asyncio.sleep(0.01)
        else:
            return
    raise AssertionError(f"version {version} is never ready")


def payload(response: pb.GenerateImagesResponse) -> list[bytes]:
    return [image.data for image in response.images]


async def test_every_model_draws_pictures_of_its_size(service: Service) -> None:
    for model in (await service.list_models()).models:
        if pb.TASK_GENERATE not in model.tasks:
            continue
        response = await generate(service, model.name, count=3)
        assert len(response.images) == 3
        for image in response.images:
            opened = Image.open(io.BytesIO(image.data))
            assert opened.size == (image.width, image.height) == (model.width, model.height)
            assert image.format == pb.IMAGE_FORMAT_PNG


async def test_a_model_says_what_it_can_be_asked(service: Service) -> None:
    assert [m.name for m in (await service.list_models()).models] == [
        "tiny_gan",
        "tiny_gaussian",
        "tiny_latent",
        "tiny_translator",
        "tiny_vae",
    ]
    gan = await service.get_model(pb.GetModelRequest(model="tiny_gan"))
    assert list(gan.versions) == [1, 2]
    assert (gan.default_version, gan.ready, list(gan.latent_shape)) == (2, True, [4])
    assert list(gan.tasks) == [pb.TASK_GENERATE, pb.TASK_DECODE]
    assert gan.metadata["data"] == "none at all"
    gaussian = await service.get_model(pb.GetModelRequest(model="tiny_gaussian"))
    assert list(gaussian.samplers) == list(SAMPLERS)
    assert (gaussian.default_sampler, gaussian.default_steps) == ("heun", 8)
    assert list(gaussian.class_labels) == list(tiny_graphs.LABELS)
    translator = await service.get_model(pb.GetModelRequest(model="tiny_translator"))
    assert (translator.width, translator.height, translator.channels) == (0, 0, 3)
    assert (translator.metadata["multiple_of"], translator.metadata["domain_b"]) == ("4", "night")


async def test_a_card_is_shown_where_there_is_one(service: Service) -> None:
    assert service.card("tiny_gan") == "# tiny_gan\n"
    assert service.card("tiny_vae") is None
    assert service.samples("tiny_vae") is None
    with pytest.raises(ServingError):
        service.card("../tiny_gan")
    told = {model.name: (model.has_card, model.has_samples) for model in (await service.list_models()).models}
    assert told["tiny_gan"] == (True, False)
    assert told["tiny_vae"] == (False, False)


@pytest.mark.parametrize("model", DRAWING)
async def test_a_run_says_how_to_make_it_again(service: Service, model: str) -> None:
    first = await generate(service, model, count=2)
    run = first.run
    again = await generate(service, model, count=2, seed=run.seed, version=run.version)
    assert payload(first) == payload(again)
    other = await generate(service, model, count=2)
    assert other.run.seed != run.seed
    assert payload(other) != payload(first)
    assert run.compute_time.ToNanoseconds() > 0


@pytest.mark.parametrize("model", DRAWING)
async def test_an_image_is_independent_of_the_count(service: Service, model: str) -> None:
    many = await generate(service, model, count=19, seed=4)
    few = await generate(service, model, count=3, seed=4)
    assert payload(many)[:3] == payload(few)


@pytest.mark.parametrize("sampler", SAMPLERS)
async def test_an_image_is_independent_of_the_count_under_every_sampler(
    service: Service, sampler: str
) -> None:
    wanted = {"model": "tiny_gaussian", "sampler": sampler, "seed": 4, "steps": 5, "guidance_scale": 2}
    many = await generate(service, count=11, **wanted)
    few = await generate(service, count=2, **wanted)
    assert payload(many)[:2] == payload(few)


async def test_pictures_are_the_same_bytes_alone_and_under_a_mixed_load(service: Service) -> None:
    random = np.random.default_rng(0)
    requests = []
    for number in range(60):
        model = DRAWING[number % len(DRAWING)]
        fields: dict[str, Any] = {"count": int(random.integers(1, 12)), "seed": number}
        if model == "tiny_gaussian":
            fields |= {
                "sampler": list(SAMPLERS)[number % len(SAMPLERS)],
                "steps": int(random.integers(1, 9)),
                "guidance_scale": float(random.choice([1, 2.5])),
                "class_id": int(random.integers(0, 3)),
            }
        requests.append((model, fields))
    alone = [payload(await generate(service, model, **fields)) for model, fields in requests]
    together = await asyncio.gather(*(generate(service, model, **fields) for model, fields in requests))
    assert [payload(response) for response in together] == alone


async def test_a_class_is_asked_by_id_or_label_and_drawn_by_the_seed_where_it_is_not(
    service: Service,
) -> None:
    by_id = await generate(service, "tiny_gan", seed=1, class_id=2, count=4)
    by_label = await generate(service, "tiny_gan", seed=1, class_label="two", count=4)
    assert payload(by_id) == payload(by_label)
    drawn = payload(await generate(service, "tiny_gan", seed=1, count=30))
    by_class = [
        payload(await generate(service, "tiny_gan", seed=1, count=30, class_id=label)) for label in range(3)
    ]
    classes = [next(c for c in range(3) if by_class[c][i] == image) for i, image in enumerate(drawn)]
    assert set(classes) == {0, 1, 2}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("class_id", [0, 1, 2])
async def test_a_diffusion_draws_the_distribution_of_its_class(
    service: Service, sampler: str, class_id: int
) -> None:
    response = await generate(
        service, "tiny_gaussian", seed=3, count=64, class_id=class_id, sampler=sampler, steps=100, format=RAW
    )
    values = pixels(response.images) / 127.5 - 1
    assert values.mean() == pytest.approx(tiny_graphs.MEANS[class_id], abs=0.03)
    assert values.std() == pytest.approx(tiny_graphs.DEVIATION, rel=0.15)


async def test_guidance_moves_the_mean_away_from_that_of_all_classes(service: Service) -> None:
    """With one deviation for every class the guided mean is scale times the class mean."""
    response = await generate(
        service, "tiny_gaussian", seed=3, count=64, class_id=2, guidance_scale=1.5, steps=30, format=RAW
    )
    assert (pixels(response.images) / 127.5 - 1).mean() == pytest.approx(0.74, abs=0.03)
    assert response.run.guidance_scale == 1.5


async def test_eta_1_is_the_ancestral_sampler(service: Service) -> None:
    wanted = {"model": "tiny_gaussian", "seed": 3, "steps": 20, "format": RAW}
    ddpm = await generate(service, sampler="ddpm", **wanted)
    ddim = await generate(service, sampler="ddim", eta=1.0, **wanted)
    plain = await generate(service, sampler="ddim", **wanted)
    difference = pixels(ddpm.images).astype(int) - pixels(ddim.images)
    assert np.abs(difference).max() <= 1
    assert payload(plain) != payload(ddim)


async def test_a_sampler_may_be_asked_for_with_a_spacing(service: Service) -> None:
    wanted = {"model": "tiny_gaussian", "seed": 3, "steps": 5}
    plain = await generate(service, sampler="euler", **wanted)
    same = await generate(service, sampler="euler_karras", **wanted)
    other = await generate(service, sampler="euler_exponential", **wanted)
    assert (plain.run.sampler, same.run.sampler) == ("euler", "euler_karras")
    assert payload(same) == payload(plain), "the spacing of an EDM schedule is that of Karras"
    assert payload(other) != payload(plain)
    await generate(service, sampler="ddim_karras", eta=0.5, **wanted)
    described = await service.get_model(pb.GetModelRequest(model="tiny_gaussian"))
    assert "karras" in described.metadata["spacings"]


async def test_truncation_0_draws_the_mean_latent(service: Service) -> None:
    response = await generate(service, "tiny_gan", seed=3, count=4, class_id=1, truncation=0.0)
    assert len(set(payload(response))) == 1


async def test_versions_are_drawn_by_their_own_weights(service: Service) -> None:
    await version_is_ready(service, 1)
    old, new, newest = [await generate(service, "tiny_gan", seed=1, version=v) for v in (1, 2, 0)]
    assert payload(old) != payload(new) == payload(newest)
    assert (old.run.version, newest.run.version) == (1, 2)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
async def test_pictures_come_in_the_format_that_was_asked_for(service: Service, image_format: str) -> None:
    asked = pb.ImageFormat.Value(f"IMAGE_FORMAT_{image_format}")
    response = await generate(service, "tiny_gaussian", format=asked)
    assert Image.open(io.BytesIO(response.images[0].data)).format == image_format
    assert response.images[0].format == asked


async def test_several_images_make_a_contact_sheet_and_one_stays_as_it_is(service: Service) -> None:
    response = await generate(service, "tiny_gaussian", count=5)
    sheet = await service.picture(response.images, pb.IMAGE_FORMAT_PNG)
    assert Image.open(io.BytesIO(sheet)).size == (3 * 66 + 2, 2 * 66 + 2)
    single = await service.picture(response.images[:1], pb.IMAGE_FORMAT_PNG)
    assert single == response.images[0].data
    webp = await service.picture(response.images[:1], pb.IMAGE_FORMAT_WEBP)
    assert Image.open(io.BytesIO(webp)).format == "WEBP"


async def test_a_stream_tells_every_step_and_ends_with_what_the_unary_call_answers(service: Service) -> None:
    request = pb.GenerateImagesRequest(model="tiny_latent", seed=2, count=2, steps=7, preview_every=3)
    events = [event async for event in service.stream_generate_images(request, CONTEXT)]
    assert [event.WhichOneof("event") for event in events] == ["progress"] * 7 + ["result"]
    assert [event.progress.step for event in events[:-1]] == list(range(1, 8))
    assert [len(event.progress.previews) for event in events[:-1]] == [0, 0, 2, 0, 0, 2, 0]
    assert events[2].progress.previews[0].width == 8
    unary = await service.generate_images(request, CONTEXT)
    assert payload(events[-1].result) == payload(unary)


async def test_a_slow_reader_of_a_stream_holds_up_nothing_and_misses_old_progress(service: Service) -> None:
    request = pb.GenerateImagesRequest(model="tiny_gaussian", steps=200)
    stream = service.stream_generate_images(request, CONTEXT)
    first = await anext(stream)
    assert first.progress.step >= 1
    for _ in range(2):
        assert len(payload(await generate(service, "tiny_gaussian", steps=200))) == 1
    rest = [event async for event in stream]
    assert len(rest) < 50
    assert rest[-1].WhichOneof("event") == "result"


async def test_closing_a_stream_ends_its_run(open_tiny: OpenService) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        request = pb.GenerateImagesRequest(model="tiny_gaussian", steps=200, count=64)
        stream = service.stream_generate_images(request, CONTEXT)
        await anext(stream)
        await stream.aclose()
        rows, before = registry.get_sample_value("atelier_rows_total", {"graph": "tiny_gaussian"}), None
        while rows != before:  # the call under way may end yet
            await asyncio.sleep(0.1)
            before = rows
            rows = registry.get_sample_value("atelier_rows_total", {"graph": "tiny_gaussian"})
        assert rows is not None
        assert rows < 200 * 64
        labels = {
            "method": "StreamGenerateImages",
            "task": "generate",
            "model": "tiny_gaussian",
            "version": "1",
            "code": "CANCELLED",
        }
        assert registry.get_sample_value("atelier_requests_total", labels) == 1
        assert registry.get_sample_value("atelier_rows_admitted") == 0


async def test_a_stream_of_a_bad_request_raises_what_the_unary_call_does(service: Service) -> None:
    request = pb.GenerateImagesRequest(model="tiny_gaussian", steps=-1)
    with pytest.raises(ServingError, match="steps -1"):
        await anext(service.stream_generate_images(request, CONTEXT))


async def test_a_cancelled_request_leaves_its_batch_mates_alone(service: Service) -> None:
    def asked(seed: int) -> pb.GenerateImagesRequest:
        return pb.GenerateImagesRequest(model="tiny_gaussian", steps=200, count=3, seed=seed)

    alone = payload(await service.generate_images(asked(1), CONTEXT))
    staying = asyncio.create_task(service.generate_images(asked(1), CONTEXT))
    leaving = [asyncio.create_task(service.generate_images(asked(s), CONTEXT)) for s in (2, 3)]
    await asyncio.sleep(0.01)
    for task in leaving:
        task.cancel()
    assert payload(await staying) == alone
    assert all(
        isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*leaving, return_exceptions=True)
    )


async def test_at_its_deadline_a_request_ends(service: Service) -> None:
    context = RequestContext(deadline=monotonic() + 0.02)
    request = pb.GenerateImagesRequest(model="tiny_gaussian", steps=200, count=256, sampler="heun")
    with pytest.raises(ServingError, match="the deadline passed") as error:
        await service.generate_images(request, context)
    assert error.value.code == Code.DEADLINE_EXCEEDED


async def test_a_full_gateway_refuses_at_once_and_says_when_to_come_again(open_tiny: OpenService) -> None:
    async with open_tiny(max_pending_rows=10) as service:
        first = asyncio.create_task(generate(service, "tiny_gaussian", count=5, guidance_scale=2, steps=200))
        await asyncio.sleep(0.01)
        with pytest.raises(ServingError) as error:
            await generate(service, "tiny_gan")
        assert error.value.code == Code.RESOURCE_EXHAUSTED
        assert error.value.retry_after is not None
        assert len((await first).images) == 5
        assert len((await generate(service, "tiny_gan")).images) == 1


BAD = [
    ({"model": "tiny_gam"}, "model", "no model 'tiny_gam'; there are tiny_gan"),
    ({"model": ""}, "model", "model is not given"),
    ({"model": "tiny_translator"}, "model", "tiny_translator cannot generate; it can translate"),
    ({"model": "tiny_gan", "version": 9}, "version", "no version 9; it has 1, 2"),
    ({"model": "tiny_gan", "version": -1}, "version", "no version -1"),
    ({"model": "tiny_gan", "count": -1}, "count", "count -1 is out of range: 1 to 256"),
    ({"model": "tiny_gan", "count": 257}, "count", "count 257 is out of range"),
    ({"model": "tiny_gan", "class_id": 3}, "class_id", "class_id 3 is out of range: 0 to 2"),
    ({"model": "tiny_gan", "class_id": -1}, "class_id", "class_id -1 is out of range"),
    (
        {"model": "tiny_gan", "class_label": "tow"},
        "class_label",
        "class_label 'tow' is not one of tiny_gan's labels: two, zero, one",
    ),
    ({"model": "tiny_gan", "prompt": "a cat"}, "prompt", "takes no prompt; ask by class_label: zero"),
    ({"model": "tiny_latent", "class_id": 0}, "class_id", "tiny_latent is unconditional"),
    ({"model": "tiny_latent", "prompt": "x"}, "prompt", "takes no prompt; leave it out"),
    ({"model": "tiny_gan", "steps": 3}, "steps", "draws in one pass: leave steps out"),
    ({"model": "tiny_gan", "guidance_scale": 3}, "guidance_scale", "draws in one pass"),
    ({"model": "tiny_gan", "eta": 0}, "eta", "draws in one pass"),
    ({"model": "tiny_gan", "sampler": "ddim"}, "sampler", "has no sampler"),
    ({"model": "tiny_gan", "truncation": -0.1}, "truncation", "truncation -0.1 is out of range: 0 to 2"),
    ({"model": "tiny_gan", "truncation": float("nan")}, "truncation", "truncation nan is out of range"),
    ({"model": "tiny_gaussian", "truncation": 1}, "truncation", "is a diffusion model, which has none"),
    (
        {"model": "tiny_gaussian", "steps": 0},
        "steps",
        "steps 0 is out of range: tiny_gaussian takes 1 to 200",
    ),
    ({"model": "tiny_gaussian", "steps": 201}, "steps", "steps 201 is out of range"),
    ({"model": "tiny_gaussian", "sampler": "eular"}, "sampler", "'eular' is not one of euler, "),
    ({"model": "tiny_gaussian", "sampler": "heun_karas"}, "sampler", "end: _cosine, _exponential, _karras,"),
    ({"model": "tiny_gaussian", "sampler": "lcm"}, "sampler", "sampler 'lcm' is not one of lms, ddim"),
    ({"model": "tiny_gaussian", "sampler": "euler_karras", "eta": 1}, "eta", "euler_karras has no eta"),
    ({"model": "tiny_gaussian", "eta": 1.5}, "eta", "eta 1.5 is out of range: 0 to 1"),
    ({"model": "tiny_gaussian", "eta": 0.5}, "eta", "sampler heun has no eta"),
    ({"model": "tiny_gaussian", "guidance_scale": -1}, "guidance_scale", "out of range: 0 to 100"),
    ({"model": "tiny_gaussian", "guidance_scale": float("inf")}, "guidance_scale", "guidance_scale inf"),
    ({"model": "tiny_latent", "guidance_scale": 2}, "guidance_scale", "tiny_latent is unconditional"),
    ({"model": "tiny_gan", "format": 77}, "format", "format 77 is not one of IMAGE_FORMAT_PNG"),
    ({"model": "tiny_gan", "preview_every": -2}, "preview_every", "preview_every -2 is negative"),
]


@pytest.mark.parametrize(("fields", "field", "message"), BAD)
async def test_a_bad_request_names_the_field_the_value_and_the_remedy(
    service: Service, fields: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ServingError) as error:
        await generate(service, **fields)
    assert error.value.field == field
    assert message in error.value.message
    expected = Code.NOT_FOUND if message.startswith("no ") else Code.INVALID_ARGUMENT
    assert error.value.code == expected


async def translate(
    service: Service, images: Sequence[pb.Image], **fields: Any
) -> pb.TranslateImagesResponse:
    request = pb.TranslateImagesRequest(model="tiny_translator", images=images, **fields)
    return await service.translate_images(request, CONTEXT)


async def test_images_of_any_size_are_translated_in_their_order(service: Service) -> None:
    random = np.random.default_rng(0)
    sizes = [(4, 8), (12, 4), (4, 8), (20, 20)]
    given = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    response = await translate(service, map(raw, given), direction="a_to_b", format=RAW)
    for image, original in zip(response.images, given, strict=True):
        np.testing.assert_array_equal(pixels([image])[0], 255 - original)
    assert response.run.model == "tiny_translator"


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"direction": "a_to_b", "images": []}, "images", "images is empty"),
        (
            {"images": [raw(np.zeros((4, 4, 3), np.uint8))]},
            "direction",
            "direction is not given; it is one of",
        ),
        (
            {"direction": "a2b"},
            "direction",
            "direction 'a2b' is not one of tiny_translator's: a_to_b, b_to_a",
        ),
        (
            {"direction": "a_to_b", "images": [raw(np.zeros((13, 6, 3), np.uint8))]},
            "images[0]",
            "6×13: tiny_translator takes sides that are multiples of 4; scale or crop it to 8×12",
        ),
        ({"direction": "a_to_b", "images": [pb.Image(data=b"?")]}, "images[0]", "is not a PNG, JPEG or WebP"),
        ({"direction": "a_to_b", "images": [pb.Image()] * 65}, "images", "at most 64 are taken"),
        ({"direction": "a_to_b", "version": 3}, "version", "no version 3"),
    ],
)
async def test_a_bad_translation_names_the_field(
    service: Service, fields: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ServingError) as error:
        await translate(service, **{"images": [], **fields})
    assert error.value.field == field
    assert message in error.value.message


def vae_image(values: Sequence[int]) -> pb.Image:
    """A grey image whose first pixels are given; the tiny VAE knows no others."""
    array = np.full((8, 8, 1), 128, np.uint8)
    array.reshape(-1)[: len(values)] = values
    return raw(array)


async def test_what_is_encoded_is_decoded_again(service: Service) -> None:
    encoded = await service.encode_images(
        pb.EncodeImagesRequest(model="tiny_vae", images=[vae_image([0, 50, 100, 255])], class_id=2), CONTEXT
    )
    (latent,) = encoded.latents
    assert list(latent.shape) == [4]
    np.testing.assert_allclose(
        np.frombuffer(latent.data, "<f4"), np.array([0, 50, 100, 255]) / 127.5 - 1 - 0.2, atol=1e-6
    )
    decoded = await service.decode_latents(
        pb.DecodeLatentsRequest(model="tiny_vae", latents=[latent], class_id=2, format=RAW), CONTEXT
    )
    assert pixels(decoded.images).reshape(-1)[:4].tolist() == [0, 50, 100, 255]


async def test_latents_of_a_gan_are_decoded_too(service: Service) -> None:
    latent = pb.Latent(data=np.zeros(4, "<f4").tobytes())
    decoded = await service.decode_latents(
        pb.DecodeLatentsRequest(model="tiny_gan", latents=[latent], class_label="one"), CONTEXT
    )
    mean = await generate(service, "tiny_gan", truncation=0.0, class_label="one")
    assert decoded.images[0].data == mean.images[0].data


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"latents": []}, "latents", "latents is empty"),
        ({"latents": [pb.Latent(data=bytes(12))]}, "latents[0]", "have shape [4]"),
        ({"latents": [pb.Latent(data=bytes(16), shape=[2, 2])]}, "latents[0]", "have shape [4]"),
        (
            {"latents": [pb.Latent(data=np.full(4, np.nan, "<f4").tobytes())]},
            "latents[0]",
            "values that are not finite",
        ),
        ({"class_id": None, "latents": [pb.Latent(data=bytes(16))]}, "class_label", "decoder takes a class"),
        ({"model": "tiny_latent"}, "model", "tiny_latent cannot decode; it can generate"),
    ],
)
async def test_bad_latents_name_the_field(
    service: Service, fields: dict[str, Any], field: str, message: str
) -> None:
    request = pb.DecodeLatentsRequest(**{"model": "tiny_vae", "class_id": 0, **fields})
    with pytest.raises(ServingError) as error:
        await service.decode_latents(request, CONTEXT)
    assert error.value.field == field
    assert message in error.value.message


async def test_an_image_of_another_size_is_not_encoded(service: Service) -> None:
    request = pb.EncodeImagesRequest(
        model="tiny_vae", class_id=0, images=[raw(np.zeros((8, 9, 1), np.uint8))]
    )
    with pytest.raises(ServingError, match="is 9×8: tiny_vae takes that size alone; scale or crop it to 8×8"):
        await service.encode_images(request, CONTEXT)


async def explore(service: Service, **fields: Any) -> pb.ExploreLatentsResponse:
    request = pb.ExploreLatentsRequest(**{"model": "tiny_vae", "class_id": 0, "format": RAW, **fields})
    return await service.explore_latents(request, CONTEXT)


def vectors(response: pb.ExploreLatentsResponse) -> np.ndarray:
    return np.array([np.frombuffer(latent.data, "<f4") for latent in response.latents])


async def test_an_interpolation_goes_from_one_point_to_the_other(service: Service) -> None:
    end = np.array([1, 0, -1, 0.5], "<f4")
    path = pb.Interpolation(to=pb.LatentPoint(latent=pb.Latent(data=end.tobytes())), linear=True)
    getattr(path, "from").image.CopyFrom(vae_image([255, 255, 0, 0]))
    response = await explore(service, interpolation=path, count=5)
    start = np.array([1, 1, -1, -1])
    np.testing.assert_allclose(vectors(response), np.linspace(start, end, 5), atol=1e-6)
    assert len(response.images) == 5
    assert pixels(response.images)[0].reshape(-1)[:4].tolist() == [255, 255, 0, 0]


async def test_a_point_drawn_with_a_seed_is_the_latent_of_that_seed(service: Service) -> None:
    path = pb.Traversal(dimension=2, low=-1, high=1)
    getattr(path, "from").seed = 11
    response = await explore(service, traversal=path, count=3, model="tiny_gan", class_id=1)
    latents = vectors(response)
    np.testing.assert_array_equal(latents[:, 2], [-1, 0, 1])
    drawn = await generate(service, "tiny_gan", seed=11, class_id=1, format=RAW)
    straight = pb.Interpolation(to=pb.LatentPoint(seed=12))
    getattr(straight, "from").seed = 11
    same = await explore(service, interpolation=straight, count=2, model="tiny_gan", class_id=1)
    assert same.images[0].data == drawn.images[0].data


async def test_arithmetic_adds_and_takes_away_points(service: Service) -> None:
    points = [pb.LatentPoint(latent=pb.Latent(data=np.full(4, v, "<f4").tobytes())) for v in (0.5, 0.25, 1)]
    response = await explore(service, arithmetic=pb.Arithmetic(plus=points[:2], minus=points[2:]))
    np.testing.assert_allclose(vectors(response), np.full((1, 4), -0.25))


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({}, "path", "no path is given"),
        ({"arithmetic": pb.Arithmetic()}, "arithmetic.plus", "arithmetic.plus is empty"),
        ({"traversal": pb.Traversal()}, "traversal.from", "set its latent, image or seed"),
        (
            {"traversal": pb.Traversal(**{"from": pb.LatentPoint(seed=1)}, dimension=4)},
            "traversal.dimension",
            "dimension 4 is out of range: tiny_vae's latents have 0 to 3",
        ),
        (
            {
                "model": "tiny_gan",
                "traversal": pb.Traversal(**{"from": pb.LatentPoint(image=vae_image([1]))}),
            },
            "traversal.from.image",
            "tiny_gan has no encoder: give a latent or a seed",
        ),
        (
            {"arithmetic": pb.Arithmetic(plus=[pb.LatentPoint(seed=1), pb.LatentPoint(image=pb.Image())])},
            "arithmetic.plus[1].image",
            "is empty",
        ),
        (
            {"arithmetic": pb.Arithmetic(plus=[pb.LatentPoint(seed=1)]), "count": 3},
            "count",
            "gives one image",
        ),
        ({"model": "tiny_gaussian"}, "model", "tiny_gaussian cannot decode"),
    ],
)
async def test_a_bad_exploration_names_the_field(
    service: Service, fields: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ServingError) as error:
        await explore(service, **fields)
    assert error.value.field == field
    assert message in error.value.message


async def test_the_pictures_of_an_exploration_share_the_room_for_pixels(open_tiny: OpenService) -> None:
    points = [pb.LatentPoint(image=vae_image([255, 0, value])) for value in (0, 128, 255)]
    async with open_tiny(max_image_pixels=2 * 8 * 8) as service:
        await explore(service, arithmetic=pb.Arithmetic(plus=points[:2]))
        for split in (2, 3):
            asked = pb.Arithmetic(plus=points[:split], minus=points[split:])
            with pytest.raises(ServingError, match="8×8, 64 pixels, and there is room for 0") as error:
                await explore(service, arithmetic=asked)
            assert error.value.field == ("arithmetic.plus[2].image", "arithmetic.minus[0].image")[split == 2]


async def test_what_is_not_there_yet_is_said_to_be_unimplemented(service: Service) -> None:
    for call in (
        service.edit_images(pb.EditImagesRequest(model="tiny_gan"), CONTEXT),
        service.score_images(pb.ScoreImagesRequest(model="tiny_gan"), CONTEXT),
    ):
        with pytest.raises(ServingError, match="not there yet") as error:
            await call
        assert error.value.code == Code.UNIMPLEMENTED


async def test_requests_are_counted_by_model_and_code(open_tiny: OpenService) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        await generate(service, "tiny_gan")
        for model in ("tiny_gan", "made up by a client"):
            with pytest.raises(ServingError):
                await generate(service, model, count=-1)

        def count(model: str, code: str, task: str = "", version: str = "") -> float | None:
            labels = {
                "method": "GenerateImages",
                "task": task,
                "model": model,
                "version": version,
                "code": code,
            }
            return registry.get_sample_value("atelier_requests_total", labels)

        assert count("tiny_gan", "OK", "generate", "2") == 1
        assert count("tiny_gan", "INVALID_ARGUMENT", "generate", "2") == 1
        assert count("unknown", "NOT_FOUND") == 1
        in_flight = {"method": "GenerateImages"}
        assert registry.get_sample_value("atelier_requests_in_flight", in_flight) == 0


async def test_until_its_models_are_loaded_the_gateway_says_why_it_is_not_ready(
    tiny_repository: Path,
) -> None:
    settings = Settings(repository=tiny_repository, device="cpu")
    async with open_service(settings, CollectorRegistry()) as service:
        assert not service.ready()
        assert service.not_ready_reason() == "loading: 0 of 8 graphs are done"
        with pytest.raises(ServingError, match="tiny_gan is being loaded") as error:
            await generate(service, "tiny_gan")
        assert (error.value.code, error.value.retry_after) == (Code.UNAVAILABLE, 1.0)
        await service.wait_loaded()
        assert service.ready()
    assert service.not_ready_reason() == "the gateway is stopping"


async def test_a_model_that_does_not_load_keeps_nobody_from_the_others(
    tiny_repository: Path, tmp_path: Path, open_tiny: OpenService, caplog: pytest.LogCaptureFixture
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository)
    (repository / "tiny_gan" / "2" / "model.onnx").write_bytes(b"")
    (repository / "tiny_vae_decoder" / "1" / "model.onnx").write_bytes(b"")
    async with open_tiny(repository=repository) as service:
        assert service.ready()
        assert "tiny_gan version 2 is not served" in caplog.text
        vae = await service.get_model(pb.GetModelRequest(model="tiny_vae"))
        assert not vae.ready
        assert "was changed or copied in part" in vae.metadata["problem"]
        with pytest.raises(ServingError, match="version 1 of tiny_vae did not load") as error:
            await generate(service, "tiny_vae")
        assert error.value.code == Code.UNAVAILABLE
        await version_is_ready(service, 1)
        assert (await generate(service, "tiny_gan")).run.version == 1


async def test_a_gateway_without_the_gpu_it_was_told_to_use_is_never_ready(open_tiny: OpenService) -> None:
    async with open_tiny(device="cuda") as service:
        reason = service.not_ready_reason()
        assert reason is not None
        assert "device is cuda" in reason
        with pytest.raises(ServingError) as error:
            await generate(service, "tiny_gan")
        assert error.value.code == Code.UNAVAILABLE


async def test_an_empty_repository_is_not_ready(tmp_path: Path, open_tiny: OpenService) -> None:
    async with open_tiny(repository=tmp_path) as service:
        assert service.not_ready_reason() == "the repository has no models"
        assert (await service.list_models()).models == []


async def test_requests_under_way_are_finished_when_the_gateway_stops(open_tiny: OpenService) -> None:
    async with open_tiny() as service:
        task = asyncio.create_task(generate(service, "tiny_gaussian", steps=30, count=9))
        await asyncio.sleep(0.01)
    assert len((await task).images) == 9
    with pytest.raises(ServingError, match="stopping") as error:
        await generate(service, "tiny_gan")
    assert error.value.code == Code.UNAVAILABLE


async def test_what_outlasts_the_grace_is_cut_off_with_a_clear_error(open_tiny: OpenService) -> None:
    async with open_tiny(shutdown_grace=0.0) as service:
        task = asyncio.create_task(generate(service, "tiny_gaussian", steps=200, count=256))
        await asyncio.sleep(0.02)
    with pytest.raises(ServingError, match="stopped before it was done") as error:
        await task
    assert error.value.code == Code.UNAVAILABLE

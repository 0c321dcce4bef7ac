"""A whole sampler in one request to a real Triton gives the pictures that the gateway draws step by step."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client import CollectorRegistry

import atelier
from serving.catalog import build, scan
from serving.noise import Stream, classes, normal
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.requests.context import RequestContext
from serving.settings import Settings
from tests.triton.server import TritonServer, few_instances, for_many, loaded, need_triton, standing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "triton-alone.md").read_text("utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shipped model, and two of its samplers."""
    folder = tmp_path_factory.mktemp("repository")
    for graph in ("digits_unet_denoiser", "digits_unet_decoder"):
        shutil.copytree(ROOT / "model_repository" / graph, folder / graph)
    for options in (["ddim:20"], ["dpmpp_2m:9", "--guidance-scale", "2"]):
        export = ["export", "--from-model", "digits_unet", "--to", str(folder), "--sampler", *options]
        assert atelier.main(export) == 0
    return folder


@pytest.fixture(scope="module")
def running(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    need_triton()
    samplers = tmp_path_factory.mktemp("samplers") / "published"
    samplers.mkdir()
    for graph in ("digits_unet_ddim20", "digits_unet_dpmpp_2m9"):
        shutil.copytree(repository / graph, samplers / graph)
    with for_many(few_instances(samplers, samplers.parent / "served")) as started:
        yield started


@pytest.fixture
def server(running: TritonServer) -> Iterator[TritonServer]:
    with standing(running):
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_address) as opened:
        yield opened


def asked(latent: np.ndarray, class_id: np.ndarray) -> list[triton.InferInput]:
    inputs = [
        triton.InferInput("latent", latent.shape, "FP32"),
        triton.InferInput("class_id", class_id.shape, "INT64"),
    ]
    for tensor, values in zip(inputs, (latent, class_id), strict=True):
        tensor.set_data_from_numpy(values)
    return inputs


async def gateway_pictures(repository: Path, **request: object) -> np.ndarray:
    """Pixels [count, height, width, channels] of the gateway, step by step on the embedded engine."""
    settings = Settings(repository=repository, device="cpu", instances=1)
    async with open_service(settings, CollectorRegistry()) as service:
        await loaded(service)
        message = pb.GenerateImagesRequest(model="digits_unet", format=pb.IMAGE_FORMAT_RAW_U8, **request)
        response = await service.generate_images(message, RequestContext())
    return np.stack(
        [
            np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, image.channels)
            for image in response.images
        ]
    )


async def test_the_example_of_the_docs_draws_the_pictures_of_the_gateway(
    repository: Path, server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, noise = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    drawn: dict[str, np.ndarray] = {}
    exec(example.replace("127.0.0.1:8001", server.grpc_address), drawn)
    expected = await gateway_pictures(
        repository, seed=1, count=4, class_label="seven", sampler="ddim", steps=20
    )
    np.testing.assert_array_equal(drawn["pixels"].transpose(0, 2, 3, 1), expected)
    assert (tmp_path / "seven.png").is_file()
    exec(noise, drawn)
    np.testing.assert_array_equal(
        [drawn["noise"](2**40 + 3, image, (1, 8, 8)) for image in range(3)],
        normal(2**40 + 3, 3, (1, 8, 8), Stream.PRIOR),
    )


async def test_guidance_and_a_multistep_method_are_in_the_graph(
    repository: Path, client: triton.InferenceServerClient
) -> None:
    latent, class_id = normal(5, 6, (1, 8, 8), Stream.PRIOR), classes(5, 6, 10)[:, None]
    sample = client.infer("digits_unet_dpmpp_2m9", asked(latent, class_id)).as_numpy("sample")
    drawn = (sample + 1) * 127.5
    expected = await gateway_pictures(
        repository, seed=5, count=6, sampler="dpmpp_2m", steps=9, guidance_scale=2.0
    )
    # Within the declared tolerance of the pixels before they are rounded.
    (manifest,) = (each for each in scan(repository).manifests if each.graph == "digits_unet_dpmpp_2m9")
    tolerance = 127.5 * manifest.versions[1].max_abs_error + 1e-4
    assert np.abs(drawn.transpose(0, 2, 3, 1) - expected).max() <= 0.5 + tolerance


def test_requests_that_triton_joins_get_the_same_bytes_as_alone(
    client: triton.InferenceServerClient,
) -> None:
    rows = [(normal(seed, 1 + seed % 3, (1, 8, 8), Stream.PRIOR), seed % 10) for seed in range(12)]
    requests = [asked(latent, np.full((len(latent), 1), digit)) for latent, digit in rows]

    def sample(inputs: list[triton.InferInput]) -> bytes:
        return bytes(client.infer("digits_unet_ddim20", inputs).as_numpy("sample").tobytes())

    alone = [sample(inputs) for inputs in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(sample, requests))
    assert together == alone
    statistics = client.get_inference_statistics("digits_unet_ddim20").model_stats[0]
    assert statistics.execution_count < statistics.inference_count, "none were joined"


def test_triton_says_what_is_wrong_with_a_request(client: triton.InferenceServerClient) -> None:
    latent = np.zeros((1, 1, 9, 8), np.float32)
    with pytest.raises(triton.InferenceServerException, match="unexpected shape for input 'latent'"):
        client.infer("digits_unet_ddim20", asked(latent, np.array([[1]])))


def test_a_gateway_counts_it_among_its_models(repository: Path) -> None:
    model = build(scan(repository)).models["digits_unet_ddim20"]
    assert model.denoiser is None
    assert model.tasks == ("generate", "decode")

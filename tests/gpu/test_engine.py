"""The embedded engine on a GPU computes what it computes on the CPU."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.calibration import Part, real_inputs
from export.precision import to_float16
from export.speed import buckets
from export.validate import open_session
from export.variant import relative_error
from serving.backends.binding import RUNS_TO_RECORD, Bound
from serving.backends.onnxruntime import OnnxRuntimeBackend
from serving.backends.providers import CUDA, TENSORRT
from serving.client import Client
from serving.client.gateway import gateway
from serving.manifest import Manifest, parse

REPOSITORY = Path(__file__).parents[2] / "model_repository"
GRAPH = "shapes_unet"

TOLERANCE = 1e-3
"""Largest difference of any element between CUDA and the CPU, in float32 without TF32."""
TENSORRT_ERROR = 1e-2
"""Root mean square, as a share of the output's: TensorRT may round factors to 10 bits."""
PICTURE_TOLERANCE = 2
"""Grey levels of 255 by which a pixel may differ after all steps."""
PIXELS = 0.999
"""Share of the pixels that are within it."""


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return parse((REPOSITORY / GRAPH / "config.pbtxt").read_text(), GRAPH)


@pytest.fixture(scope="module")
def inputs(manifest: Manifest) -> dict[str, np.ndarray]:
    session = open_session((REPOSITORY / GRAPH / "1" / "model.onnx").read_bytes())
    return real_inputs([Part(manifest=manifest, session=session)], None, seed=0, images=8)["denoiser"]


@pytest.fixture(scope="module")
def expected(inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = open_session((REPOSITORY / GRAPH / "1" / "model.onnx").read_bytes())
    return session.run(["prediction"], inputs)[0]


def backend(**options: object) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(repository=REPOSITORY, device="cuda", instances=0, threads=1, **options)


async def prediction(opened: OnnxRuntimeBackend, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return (await opened.infer(GRAPH, 1, inputs)).outputs["prediction"]


@pytest.fixture
async def cuda() -> AsyncIterator[OnnxRuntimeBackend]:
    opened = backend()
    await opened.load(GRAPH, 1)
    yield opened
    await opened.close()


async def test_cuda_computes_what_the_cpu_does_at_every_size_and_again_when_replayed(
    cuda: OnnxRuntimeBackend, inputs: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    assert cuda.describe()["providers"] == [CUDA]
    for rows in (1, 2, 3, 5, 8, 17, 64):
        batch = {name: values[:rows] for name, values in inputs.items()}
        for _ in range(RUNS_TO_RECORD + 2):
            found = await prediction(cuda, batch)
            assert np.abs(found - expected[:rows]).max() <= TOLERANCE


async def test_every_size_is_recorded_and_replays_do_not_mix_up_their_inputs(
    cuda: OnnxRuntimeBackend, manifest: Manifest, inputs: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    sizes = buckets(1, manifest.max_batch_size)
    for rows in sizes * RUNS_TO_RECORD:
        await cuda.infer(GRAPH, 1, {name: values[:rows] for name, values in inputs.items()})
    calls = cuda._sessions[GRAPH, 1].calls
    assert isinstance(calls, Bound)
    assert calls.recorded() == sizes
    for start in (0, 40, 7, 23):
        for rows in (4, 16, 4):
            batch = {name: values[start : start + rows] for name, values in inputs.items()}
            found = await prediction(cuda, batch)
            assert np.abs(found - expected[start : start + rows]).max() <= TOLERANCE


async def test_a_recorded_call_gives_what_the_same_call_gives_as_it_is(
    cuda: OnnxRuntimeBackend, inputs: dict[str, np.ndarray]
) -> None:
    plain = backend(cuda_graphs=False)
    await plain.load(GRAPH, 1)
    batch = {name: values[:8] for name, values in inputs.items()}
    for _ in range(RUNS_TO_RECORD + 2):
        with_graphs = await prediction(cuda, batch)
    without = await prediction(plain, batch)
    np.testing.assert_allclose(with_graphs, without, atol=1e-5)
    await plain.close()


async def test_a_model_is_loaded_and_let_go_while_another_is_recorded(
    cuda: OnnxRuntimeBackend, inputs: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    batch = {name: values[:16] for name, values in inputs.items()}
    for _ in range(4):
        await cuda.load("digits_gan", 1)
        found = await prediction(cuda, batch)
        assert np.abs(found - expected[:16]).max() <= TOLERANCE
        await cuda.unload("digits_gan", 1)


async def test_a_row_is_the_same_within_the_tolerance_in_any_batch(
    cuda: OnnxRuntimeBackend, inputs: dict[str, np.ndarray]
) -> None:
    alone = await prediction(cuda, {n: v[:1] for n, v in inputs.items()})
    for rows in (2, 7, 33, 64):
        batch = {name: values[:rows] for name, values in inputs.items()}
        found = (await prediction(cuda, batch))[:1]
        assert np.abs(found - alone).max() <= TOLERANCE


async def test_tensorrt_computes_what_the_cpu_does_and_keeps_its_engines(
    tmp_path: Path, inputs: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    if TENSORRT not in onnxruntime.get_available_providers():
        pytest.skip("NO TENSORRT: this onnxruntime is built without it")
    for _ in range(2):
        opened = backend(accelerator="tensorrt", engine_cache=tmp_path)
        await opened.load(GRAPH, 1)
        assert opened.describe()["providers"] == [TENSORRT]
        for rows in (1, 8, 64):
            batch = {name: values[:rows] for name, values in inputs.items()}
            found = await prediction(opened, batch)
            assert relative_error([expected[:rows]], [found]) <= TENSORRT_ERROR
        await opened.close()
    assert list(tmp_path.rglob("*.engine"))


def test_a_float16_graph_on_cuda_is_close_to_float32_on_the_cpu(
    inputs: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    model = to_float16((REPOSITORY / GRAPH / "1" / "model.onnx").read_bytes())
    session = onnxruntime.InferenceSession(model, providers=[CUDA, "CPUExecutionProvider"])
    found = session.run(["prediction"], inputs)
    assert relative_error([expected], found) <= 0.01


def test_pictures_of_a_seed_are_the_same_on_cuda_and_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("ATELIER_DEVICE", device)
        with gateway(REPOSITORY) as running, Client(running.grpc_address) as client:
            drawn[device] = client.generate(GRAPH, class_id=3, count=16, seed=7).arrays.astype(int)
    difference = np.abs(drawn["cpu"] - drawn["cuda"])
    assert (difference <= PICTURE_TOLERANCE).mean() >= PIXELS

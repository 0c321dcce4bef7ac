import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_graphs

from serving.backends.onnxruntime import OnnxRuntimeBackend
from serving.backends.sessions import onnxruntime_and_providers
from serving.errors import Code, ServingError

CUDA = "CUDAExecutionProvider"


@pytest.fixture
async def backend(tiny_repository: Path) -> AsyncIterator[OnnxRuntimeBackend]:
    opened = OnnxRuntimeBackend(repository=tiny_repository, device="cpu", instances=2, threads=1)
    yield opened
    await opened.close()


async def refusal(backend: OnnxRuntimeBackend, graph: str, version: int = 1) -> ServingError:
    with pytest.raises(ServingError) as error:
        await backend.load(graph, version)
    await backend.close()
    assert not backend.ready(graph, version)
    return error.value


def fresh(repository: Path, device: str = "cpu", **options: object) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(repository=repository, device=device, instances=1, threads=1, **options)


async def test_a_loaded_graph_computes_rows(backend: OnnxRuntimeBackend) -> None:
    await backend.load("tiny_translator_a_to_b", 1)
    assert backend.ready("tiny_translator_a_to_b", 1)
    image = np.random.default_rng(0).standard_normal((3, 3, 4, 8)).astype(np.float32)
    outputs, seconds = await backend.infer("tiny_translator_a_to_b", 1, {"image": image})
    np.testing.assert_array_equal(outputs["translated"], -image)
    assert seconds > 0


async def test_a_call_that_is_computed_here_is_done_without_a_turn_of_the_event_loop(
    backend: OnnxRuntimeBackend,
) -> None:
    await backend.load("tiny_translator_a_to_b", 1)
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 8)).astype(np.float32)
    call = backend.infer("tiny_translator_a_to_b", 1, {"image": image}, here=True)
    with pytest.raises(StopIteration) as done:
        call.send(None)
    np.testing.assert_array_equal(done.value.value.outputs["translated"], -image)


async def test_calls_run_side_by_side_on_one_session(backend: OnnxRuntimeBackend) -> None:
    await backend.load("tiny_translator_b_to_a", 1)
    images = np.random.default_rng(0).standard_normal((8, 1, 3, 64, 64)).astype(np.float32)
    alone = [await backend.infer("tiny_translator_b_to_a", 1, {"image": image}) for image in images]
    together = await asyncio.gather(
        *(backend.infer("tiny_translator_b_to_a", 1, {"image": image}) for image in images)
    )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.outputs["translated"], other.outputs["translated"])


async def test_what_is_not_loaded_cannot_be_called(backend: OnnxRuntimeBackend) -> None:
    await backend.load("tiny_gan", 1)
    await backend.unload("tiny_gan", 1)
    await backend.unload("nobody", 3)
    with pytest.raises(ServingError) as error:
        await backend.infer("tiny_gan", 1, {})
    assert error.value.code == Code.UNAVAILABLE


async def test_a_graph_or_version_that_is_not_there_is_not_found(backend: OnnxRuntimeBackend) -> None:
    assert (await refusal(backend, "nobody")).code == Code.NOT_FOUND


async def test_a_file_that_does_not_match_its_digest_is_refused(tmp_path: Path) -> None:
    tiny_graphs.publish_gan(tmp_path)
    path = tmp_path / "tiny_gan" / "1" / "model.onnx"
    model = bytearray(path.read_bytes())
    model[-1] ^= 1
    path.write_bytes(model)
    error = await refusal(fresh(tmp_path), "tiny_gan")
    assert error.code == Code.FAILED_PRECONDITION
    assert "sha256" in error.message
    assert "export it again" in error.message


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    tiny_graphs.publish_gan(tmp_path)
    manifest = (await fresh(tmp_path).index()).manifests[0]
    tiny_graphs.publish(tmp_path / "other", manifest, {1: b"not a model"})
    error = await refusal(fresh(tmp_path / "other"), "tiny_gan")
    assert error.code == Code.FAILED_PRECONDITION
    assert "does not load" in error.message


async def test_a_model_of_another_shape_than_its_configuration_is_refused(tmp_path: Path) -> None:
    tiny_graphs.publish_gan(tmp_path)
    config = tmp_path / "tiny_gan" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: 4", "dims: 5", 1))
    error = await refusal(fresh(tmp_path), "tiny_gan")
    assert error.code == Code.FAILED_PRECONDITION
    assert "does not run on inputs of its config.pbtxt" in error.message


SHIPPED = Path(__file__).parents[3] / "model_repository"
GAN = "digits_gan"


async def drawn(repository: Path, **options: object) -> np.ndarray:
    """What a graph with normalisations gives for fixed inputs."""
    backend = fresh(repository, **options)
    await backend.load(GAN, 1)
    latent = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    computed = await backend.infer(GAN, 1, {"latent": latent, "class_id": np.array([[1], [2], [3]])})
    await backend.close()
    return np.asarray(computed.outputs["sample"])


@pytest.fixture
def published() -> np.ndarray:
    """The same by the file itself."""
    session = onnxruntime.InferenceSession(SHIPPED / GAN / "1" / "model.onnx")
    latent = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    return np.asarray(session.run(None, {"latent": latent, "class_id": np.array([[1], [2], [3]])})[0])


async def test_graphs_are_rewritten_unless_that_is_not_wanted(published: np.ndarray) -> None:
    np.testing.assert_array_equal(await drawn(SHIPPED, rewrite_graphs=False), published)
    by_default = await drawn(SHIPPED)
    assert (by_default != published).any(), "the same function in another order"
    np.testing.assert_allclose(by_default, published, atol=1e-5)


def fails(model: bytes) -> bytes:
    raise KeyError("a node that no rule has foreseen")


def does_not_load(model: bytes) -> bytes:
    return b"not a model"


def takes_one_row(model: bytes) -> bytes:
    """As after a rule that takes what it sees for one image for what all have."""
    proto = onnx.load_model_from_string(model)
    (result,) = proto.graph.output
    (maker,) = (node for node in proto.graph.node if result.name in node.output)
    maker.output[:] = ["inner"]
    shape = onnx.numpy_helper.from_array(np.array([1, 1, 32, 32]), "one_row")
    proto.graph.initializer.append(shape)
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["inner", "one_row"], [result.name]))
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("rewritten", [fails, does_not_load, takes_one_row, None])
async def test_a_graph_that_cannot_be_rewritten_is_served_as_it_was_published(
    rewritten: Any, published: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = None if rewritten is None else SimpleNamespace(rewritten=rewritten)
    monkeypatch.setitem(sys.modules, "serving.backends.rewriting", module)  # None: onnx is not there
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(await drawn(SHIPPED), published)
    assert f"{GAN} is served as it was published, not rewritten" in caplog.text


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime knows CUDA")
async def test_a_gpu_that_was_asked_for_and_is_not_to_be_had_is_unavailable(tiny_repository: Path) -> None:
    error = await refusal(fresh(tiny_repository, device="cuda"), "tiny_gan")
    assert error.code == Code.UNAVAILABLE
    assert "install onnxruntime-gpu" in error.message


@pytest.fixture
def claims_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An onnxruntime that claims CUDA and TensorRT, as with a broken GPU; its sessions get the CPU."""
    claimed = ["TensorrtExecutionProvider", CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
    onnxruntime_and_providers.cache_clear()
    yield
    onnxruntime_and_providers.cache_clear()


@pytest.mark.filterwarnings("ignore:Specified provider")
async def test_a_session_that_fell_back_to_the_cpu_is_not_taken_for_a_gpu(
    tiny_repository: Path, claims_cuda: None
) -> None:
    error = await refusal(fresh(tiny_repository, device="cuda"), "tiny_gan")
    assert error.code == Code.UNAVAILABLE
    assert "onnxruntime gave CPUExecutionProvider" in error.message


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime knows CUDA")
async def test_tensorrt_that_was_asked_for_and_is_not_to_be_had_is_unavailable(tiny_repository: Path) -> None:
    error = await refusal(fresh(tiny_repository, device="auto", accelerator="tensorrt"), "tiny_gan")
    assert error.code == Code.UNAVAILABLE
    assert "accelerator is tensorrt, but this onnxruntime is built without it" in error.message


async def test_tensorrt_on_the_cpu_is_refused(tiny_repository: Path) -> None:
    error = await refusal(fresh(tiny_repository, accelerator="tensorrt"), "tiny_gan")
    assert error.code == Code.UNAVAILABLE
    assert "set device to cuda or auto, or accelerator to none" in error.message


@pytest.mark.filterwarnings("ignore:Specified provider")
async def test_tensorrt_is_never_replaced_without_a_word(
    tiny_repository: Path, claims_cuda: None, tmp_path: Path
) -> None:
    backend = fresh(tiny_repository, device="auto", accelerator="tensorrt", engine_cache=tmp_path)
    error = await refusal(backend, "tiny_gan")
    assert error.code == Code.UNAVAILABLE
    assert "accelerator is tensorrt, but onnxruntime gave CPUExecutionProvider" in error.message
    assert "pip install tensorrt" in error.message
    (engines,) = (tmp_path / "tiny_gan").iterdir()
    assert engines.name.startswith("1-")


@pytest.mark.filterwarnings("ignore:Specified provider")
async def test_a_broken_model_is_not_blamed_on_the_gpu(
    tiny_repository: Path, tmp_path: Path, claims_cuda: None
) -> None:
    tiny_graphs.publish_gan(tmp_path)
    manifest = (await fresh(tmp_path).index()).manifests[0]
    tiny_graphs.publish(tmp_path / "other", manifest, {1: b"not a model"})
    error = await refusal(fresh(tmp_path / "other", device="cuda"), "tiny_gan")
    assert error.code == Code.FAILED_PRECONDITION
    assert "does not load" in error.message


@pytest.mark.filterwarnings("ignore:Specified provider")
async def test_falling_back_where_that_is_allowed_is_said_once(
    tiny_repository: Path, claims_cuda: None, caplog: pytest.LogCaptureFixture
) -> None:
    backend = fresh(tiny_repository, device="auto")
    await backend.load("tiny_gan", 1)
    await backend.load("tiny_gan", 2)
    assert backend.ready("tiny_gan", 2)
    assert caplog.text.count("no working GPU") == 1
    assert backend.describe()["providers"] == ["CPUExecutionProvider"]
    await backend.close()


async def test_closing_waits_for_calls_under_way(tiny_repository: Path) -> None:
    backend = fresh(tiny_repository)
    await backend.load("tiny_translator_b_to_a", 1)
    image = np.ones((1, 3, 512, 512), np.float32)
    call = asyncio.create_task(backend.infer("tiny_translator_b_to_a", 1, {"image": image}))
    await asyncio.sleep(0)
    await backend.close()
    assert (await call).outputs["translated"].shape == image.shape


async def test_a_cancelled_call_returns_when_its_inputs_are_not_read_any_more(tiny_repository: Path) -> None:
    backend = fresh(tiny_repository)
    await backend.load("tiny_translator_b_to_a", 1)
    image = np.ones((1, 3, 1024, 1024), np.float32)
    calls = [asyncio.create_task(backend.infer("tiny_translator_b_to_a", 1, {"image": image})) for _ in "ab"]
    await asyncio.sleep(0.005)
    calls[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    assert calls[0].done(), "the one thread took the calls in their order"
    await backend.close()

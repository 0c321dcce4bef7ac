"""The backend over real Tritons, by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import tiny_graphs

from serving.backends.onnxruntime import OnnxRuntimeBackend
from serving.backends.triton.backend import TritonBackend
from serving.calls import Computed
from serving.catalog import scan
from serving.client.gateway import free_ports
from serving.errors import Code, ServingError
from serving.settings import Settings
from tests.triton.server import TritonServer, few_instances, need_triton, triton_server

BLUR = "tiny_translator_b_to_a"
INVERT = "tiny_translator_a_to_b"
SMALL = {"image": np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)}
LARGE = {"image": np.random.default_rng(0).standard_normal((4, 3, 512, 512)).astype(np.float32)}


@asynccontextmanager
async def over(*servers: TritonServer, **settings: Any) -> AsyncIterator[TritonBackend]:
    """The backend over these servers."""
    url = ",".join(server.grpc_address for server in servers)
    backend = TritonBackend.from_settings(Settings(backend="triton", triton_url=url, **settings))
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def translating(*servers: TritonServer, **settings: Any) -> AsyncIterator[TritonBackend]:
    """The backend, its translator loaded."""
    async with over(*servers, **settings) as backend:
        await backend.index()
        for graph in (BLUR, INVERT):
            await backend.load(graph, 1)
        yield backend


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Waits until something holds."""
    end = monotonic() + seconds
    while not holds():
        assert monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.01)


@pytest.fixture
def translators(tmp_path: Path) -> Path:
    """A repository of a translator alone."""
    need_triton()
    tiny_graphs.publish_translator(tmp_path / "published")
    return few_instances(tmp_path / "published", tmp_path / "repository")


async def test_manifests_come_from_the_address_alone(
    tiny_triton: TritonServer, tiny_repository: Path
) -> None:
    async with over(tiny_triton) as backend:
        index = await backend.index()
    assert index.manifests == scan(tiny_triton.repository).manifests
    assert [m.graph for m in index.manifests] == [m.graph for m in scan(tiny_repository).manifests]


async def test_outputs_are_the_bytes_of_the_embedded_engine(
    tiny_triton: TritonServer, tiny_repository: Path
) -> None:
    embedded = OnnxRuntimeBackend(repository=tiny_repository, device="cpu", instances=1, threads=1)
    await embedded.load(BLUR, 1)
    async with translating(tiny_triton) as backend:
        for inputs in (SMALL, LARGE):
            outputs = (await backend.infer(BLUR, 1, inputs)).outputs
            expected = (await embedded.infer(BLUR, 1, inputs)).outputs
            assert outputs["translated"].tobytes() == expected["translated"].tobytes()
    await embedded.close()


async def test_nobody_at_the_address_is_unavailable_with_the_remedy() -> None:
    (port,) = free_ports(1)
    nobody = TritonBackend.from_settings(Settings(backend="triton", triton_url=f"127.0.0.1:{port}"))
    with pytest.raises(ServingError, match="no Triton answers") as error:
        await nobody.index()
    await nobody.close()
    assert error.value.code == Code.UNAVAILABLE
    assert error.value.retry_after


async def test_a_killed_server_fails_its_calls_at_once_and_is_back_when_it_is(translators: Path) -> None:
    with triton_server(translators) as server:
        async with translating(server) as backend:
            calls = [asyncio.create_task(backend.infer(BLUR, 1, LARGE)) for _ in range(12)]
            await asyncio.sleep(0.05)
            server.kill()
            killed = monotonic()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert monotonic() - killed < 5
            failed = [result for result in results if not isinstance(result, Computed)]
            assert failed
            assert {getattr(result, "code", result) for result in failed} == {Code.UNAVAILABLE}
            with pytest.raises(ServingError):
                await backend.infer(BLUR, 1, SMALL)
            await until(lambda: not backend.ready(BLUR, 1))
            await asyncio.to_thread(server.start)
            await until(lambda: backend.ready(BLUR, 1), seconds=2)
            assert (await backend.infer(BLUR, 1, SMALL)).outputs["translated"].shape == SMALL["image"].shape


async def test_calls_of_a_server_that_dies_are_answered_by_another(translators: Path) -> None:
    with triton_server(translators) as one, triton_server(translators) as other:
        async with translating(one, other) as backend:
            expected = (await backend.infer(BLUR, 1, LARGE)).outputs["translated"].tobytes()
            calls = [asyncio.create_task(backend.infer(BLUR, 1, LARGE)) for _ in range(12)]
            await asyncio.sleep(0.05)
            one.kill()
            for call in calls:
                assert (await call).outputs["translated"].tobytes() == expected
            assert backend.describe()["servers"][other.grpc_address] == "answers"
            assert backend.slots() == 1

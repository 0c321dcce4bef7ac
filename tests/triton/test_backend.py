"""The backend over real Tritons, by itself."""

import asyncio
from pathlib import Path
from time import monotonic

import living
import numpy as np
import pytest

from serving.backends.onnxruntime import OnnxRuntimeBackend
from serving.backends.triton import endpoint
from serving.backends.triton.backend import TritonBackend
from serving.calls import Computed
from serving.catalog import scan
from serving.client.gateway import free_ports
from serving.errors import Code, ServingError
from serving.settings import Settings
from tests.triton.backends import BLUR, INVERT, LARGE, SMALL, over, translating, until
from tests.triton.server import Control, TritonServer, need_triton, triton_server


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


async def test_it_is_closed_even_where_a_server_comes_to_be_doubted_just_then() -> None:
    (port,) = free_ports(1)
    for turns in range(5):
        nobody = TritonBackend.from_settings(Settings(backend="triton", triton_url=f"127.0.0.1:{port}"))
        with pytest.raises(ServingError):
            await nobody.index()
        await asyncio.sleep(0.05)
        for doubt in nobody._doubts.values():
            doubt.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await nobody.close()


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
            await until(lambda: backend.slots() == 1)


async def test_a_server_that_hangs_is_given_up_and_comes_back(
    translators: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_PROBE_SECONDS", 0.3)
    with triton_server(translators) as server:
        async with translating(server) as backend:
            server.freeze()
            with pytest.raises(ServingError, match="does not answer") as error:
                await asyncio.wait_for(backend.infer(BLUR, 1, SMALL), 20)
            assert error.value.code == Code.UNAVAILABLE
            server.thaw()
            await until(lambda: backend.ready(BLUR, 1), seconds=5)
            await backend.infer(BLUR, 1, SMALL)


@pytest.mark.parametrize("control", ["explicit", "poll"])
async def test_a_server_is_followed_however_it_is_controlled(tmp_path: Path, control: Control) -> None:
    need_triton()
    living.publish(tmp_path, "grey", 1)
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "config.pbtxt").write_text('backend: "onnxruntime" max_batch_size: 1')
    living.write_model(tmp_path, "stranger", 1, living.model_of(0))
    with triton_server(tmp_path, control=control, flags=["--repository-poll-secs=1"]) as server:
        async with over(server) as backend:
            index = await backend.index()
            assert [m.graph for m in index.manifests] == ["grey"]
            assert "stranger" in index.refused
            await backend.load("grey", 1)
            living.publish(tmp_path, "grey", 2)
            end = monotonic() + 20
            while 2 not in index.manifests[0].versions:
                assert monotonic() < end
                await asyncio.sleep(0.3)
                index = await backend.index()
            await backend.load("grey", 2)
            latent = np.zeros((1, 16), np.float32)
            for version in (1, 2):
                (outputs, _) = await backend.infer("grey", version, {"latent": latent})
                assert np.allclose(outputs["sample"], living.grey(version))
            with pytest.raises(ServingError):
                await backend.load("grey", 7)


async def test_a_server_under_explicit_control_gets_its_models_again_when_it_is_back(
    translators: Path,
) -> None:
    with triton_server(translators, control="explicit") as server:
        async with translating(server) as backend:
            server.kill()
            await until(lambda: not backend.ready(BLUR, 1))
            await asyncio.to_thread(server.start)
            await until(lambda: backend.ready(BLUR, 1) and backend.ready(INVERT, 1))
            await backend.unload(BLUR, 1)
            assert not backend.ready(BLUR, 1)
            assert BLUR in {m.graph for m in (await backend.index()).manifests}
            await backend.load(BLUR, 1)
            await backend.infer(BLUR, 1, SMALL)

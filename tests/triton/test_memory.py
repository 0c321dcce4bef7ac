"""Tensors in memory that gateway and Triton share, and in messages where that is refused."""

import asyncio
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from tests.triton.backends import BLUR, LARGE, SMALL, translating, until
from tests.triton.server import TritonServer, triton_server


def regions(server: TritonServer) -> int:
    """Regions of shared memory that a server knows."""
    with triton.InferenceServerClient(server.grpc_address) as client:
        return len(client.get_system_shared_memory_status().regions)


def ours() -> set[str]:
    """What this machine has shared."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith("psm_")}


async def test_large_tensors_are_shared_and_small_ones_sent(translators: Path) -> None:
    before = ours()
    with triton_server(translators) as server:
        async with translating(server) as plain:
            expected = (await plain.infer(BLUR, 1, LARGE)).outputs["translated"].tobytes()
        async with translating(server, triton_shared_memory="system") as backend:
            await backend.infer(BLUR, 1, SMALL)
            assert regions(server) == 0
            results = await asyncio.gather(*(backend.infer(BLUR, 1, LARGE) for _ in range(6)))
            assert {result.outputs["translated"].tobytes() for result in results} == {expected}
            known = regions(server)
            assert 1 <= known <= 6
            await backend.infer(BLUR, 1, LARGE)
            assert regions(server) == known, "regions are used again"
            cancelled = asyncio.create_task(backend.infer(BLUR, 1, LARGE))
            await asyncio.sleep(0.01)
            cancelled.cancel()
            assert (await backend.infer(BLUR, 1, LARGE)).outputs["translated"].tobytes() == expected
            server.kill()
            await until(lambda: not backend.ready(BLUR, 1))
            await asyncio.to_thread(server.start)
            await until(lambda: backend.ready(BLUR, 1))
            assert (await backend.infer(BLUR, 1, LARGE)).outputs["translated"].tobytes() == expected
            assert regions(server) == 1
        assert regions(server) == 0, "what is not used any more is unregistered"
    assert ours() <= before


@pytest.mark.parametrize("kind", ["system", "cuda"])
async def test_where_sharing_is_refused_tensors_are_sent(
    translators: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["--grpc-restricted-protocol=shared-memory:nobody=knows"]
    with triton_server(translators, flags=flags) as server:
        async with translating(server) as plain, translating(server, triton_shared_memory=kind) as backend:
            expected = (await plain.infer(BLUR, 1, LARGE)).outputs["translated"].tobytes()
            for _ in range(2):
                assert (await backend.infer(BLUR, 1, LARGE)).outputs["translated"].tobytes() == expected
    assert caplog.text.count("tensors go in messages") == 1

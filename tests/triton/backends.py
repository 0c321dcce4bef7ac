"""The backend over real Tritons, and calls that show what it does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import numpy as np

from serving.backends.triton.backend import TritonBackend
from serving.settings import Settings
from tests.triton.server import TritonServer

BLUR = "tiny_translator_b_to_a"
INVERT = "tiny_translator_a_to_b"
SMALL = {"image": np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)}
LARGE = {"image": np.random.default_rng(0).standard_normal((4, 3, 256, 256)).astype(np.float32)}


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

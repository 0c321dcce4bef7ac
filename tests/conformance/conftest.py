"""The service over every backend: what holds of one holds of all."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import tiny_graphs

from serving.opening import open_service
from serving.service import Service
from serving.settings import Settings
from tests.triton.server import TritonServer, loaded, tiny_server, tiny_triton

__all__ = ["tiny_server", "tiny_triton"]

BACKENDS = ("onnxruntime", "triton")
OpenService = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a model of every kind. Not to be written to."""
    return tiny_graphs.publish_all(tmp_path_factory.mktemp("repository"))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Service]:
    """The service, its models loaded."""
    async with open_service(settings, CollectorRegistry()) as service:
        await loaded(service)
        yield service


@pytest.fixture(params=BACKENDS)
def open_tiny(request: pytest.FixtureRequest, tiny_repository: Path) -> OpenService:
    """Opens the service on the tiny models over one of the backends, with settings of one's own."""

    def opening(**settings: Any) -> AbstractAsyncContextManager[Service]:
        if request.param == "triton":
            server: TritonServer = request.getfixturevalue("tiny_triton")
            return opened(Settings(backend="triton", triton_url=server.grpc_address, **settings))
        return opened(Settings(repository=tiny_repository, device="cpu", instances=2, **settings))

    return opening


@pytest.fixture
async def service(open_tiny: OpenService) -> AsyncIterator[Service]:
    """The service on the tiny models over one of the backends."""
    async with open_tiny() as opened:
        yield opened


@pytest.fixture
async def embedded(tiny_repository: Path) -> AsyncIterator[Service]:
    """The service on the tiny models over the embedded engine, for comparison."""
    async with opened(Settings(repository=tiny_repository, device="cpu", instances=2)) as service:
        yield service

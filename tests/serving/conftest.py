"""A repository of tiny models, and the service on it."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parent))

import tiny_graphs

from serving.opening import open_service
from serving.service import Service
from serving.settings import Settings

OpenService = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a model of every kind (see `tiny_graphs`). Not to be written to."""
    return tiny_graphs.publish_all(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def open_tiny(tiny_repository: Path) -> OpenService:
    """Opens the service on the tiny models, with settings of one's own, and waits until it has loaded."""

    @asynccontextmanager
    async def opened(registry: CollectorRegistry | None = None, **settings: Any) -> AsyncIterator[Service]:
        values = {"repository": tiny_repository, "device": "cpu", "instances": 2, **settings}
        async with open_service(Settings(**values), registry or CollectorRegistry()) as service:
            await service.wait_loaded()
            yield service

    return opened


@pytest.fixture
async def service(open_tiny: OpenService) -> AsyncIterator[Service]:
    """The service on the tiny models."""
    async with open_tiny() as opened:
        yield opened

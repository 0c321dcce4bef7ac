"""Models that come, change and go, over every backend."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import living
import pytest
from prometheus_client import CollectorRegistry

from serving.errors import Code, ServingError
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext, Service
from serving.settings import Settings
from tests.triton.server import loaded, need_triton, triton_server

OpenService = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model whose grey says which version drew it, and another."""
    folder = tmp_path / "repository"
    folder.mkdir()
    living.publish(folder, "grey", 1)
    living.publish(folder, "other", 1)
    return folder


@pytest.fixture(params=["onnxruntime", "triton"])
def open_own(request: pytest.FixtureRequest, repository: Path) -> Iterator[OpenService]:
    """Opens the service on that repository; over a Triton that takes orders, and is there all the time."""
    if request.param == "triton":
        need_triton()
        with triton_server(repository, control="explicit") as server:
            yield opener(backend="triton", triton_url=server.grpc_address)
    else:
        yield opener(repository=repository, device="cpu", instances=2)


def opener(**fixed: Any) -> OpenService:
    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Service]:
        async with open_service(Settings(**fixed, **settings), CollectorRegistry()) as service:
            await loaded(service)
            yield service

    return opened


async def version(service: Service, model: str = "grey") -> int:
    """The version that draws, which the pixels say too."""
    request = pb.GenerateImagesRequest(model=model, seed=1, format=pb.IMAGE_FORMAT_RAW_U8)
    response = await service.generate_images(request, RequestContext())
    pixel = response.images[0].data[0] / 127.5 - 1
    assert pixel == pytest.approx(living.grey(response.run.version), abs=0.01)
    return response.run.version


async def until_served(service: Service, wanted: int) -> None:
    end = monotonic() + 60
    while await version(service) != wanted:
        assert monotonic() < end, f"version {wanted} is not served"
        await asyncio.sleep(0.1)


async def test_a_new_version_takes_over_and_a_broken_one_does_not(
    open_own: OpenService, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_own(model_control="poll", poll_seconds=0.2) as service:
        assert await version(service) == 1
        living.publish(repository, "grey", 2)
        await until_served(service, 2)
        described = living.published(repository, "grey")
        living.write_model(repository, "grey", 3, b"no model")
        records = {**described.versions, 3: living.record(b"no model")}
        living.change(repository, "grey", versions=records)
        end = monotonic() + 60
        while "grey/3" not in caplog.text and "grey version 3" not in caplog.text:
            assert monotonic() < end, "nobody says that version 3 is refused"
            assert await version(service) == 2
            await asyncio.sleep(0.1)
        assert await version(service) == 2
        assert await version(service, "other") == 1


async def test_models_are_loaded_and_unloaded_when_told_to(open_own: OpenService) -> None:
    async with open_own(model_control="explicit", load_models=("grey",)) as service:
        assert await version(service) == 1
        with pytest.raises(ServingError, match="not loaded") as error:
            await version(service, "other")
        assert error.value.code == Code.UNAVAILABLE
        await service.load_model("other")
        assert await version(service, "other") == 1
        await service.unload_model("grey")
        with pytest.raises(ServingError, match="not loaded"):
            await version(service)
        await service.load_model("grey")
        assert await version(service) == 1
        with pytest.raises(ServingError) as error:
            await service.load_model("nobody")
        assert error.value.code == Code.NOT_FOUND


async def test_what_does_not_fit_is_refused_and_the_rest_is_answered(open_own: OpenService) -> None:
    async with open_own(max_pending_rows=8) as service:

        async def ask() -> str:
            request = pb.GenerateImagesRequest(model="grey", count=4)
            try:
                await service.generate_images(request, RequestContext())
            except ServingError as error:
                return f"{error.code}, again after a while" if error.retry_after else error.code
            return "OK"

        outcomes = await asyncio.gather(*(ask() for _ in range(12)))
        assert outcomes.count("OK") >= 2
        assert set(outcomes) == {"OK", "RESOURCE_EXHAUSTED, again after a while"}


async def test_a_service_that_is_opened_again_serves_what_it_did(open_own: OpenService) -> None:
    for _ in range(2):
        async with open_own() as service:
            assert await version(service) == 1

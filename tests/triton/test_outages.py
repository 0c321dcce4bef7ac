"""The gateway while its Triton is not there, goes under load, and returns."""

import asyncio
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest
import tiny_graphs
from prometheus_client import CollectorRegistry

from benchmarks.triton.server import TritonServer
from serving.errors import ServingError
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.requests.context import RequestContext
from serving.service import Service
from serving.settings import Settings
from tests.triton.server import few_instances, loaded, need_triton

DEADLINE = 20.0


@pytest.fixture
def gaussians(tmp_path: Path) -> Path:
    """A repository of diffusion models."""
    need_triton()
    tiny_graphs.publish_gaussians(tmp_path / "published")
    return few_instances(tmp_path / "published", tmp_path / "repository")


async def ask(service: Service, seed: int, steps: int = 60) -> bytes:
    """A picture that takes many calls."""
    request = pb.GenerateImagesRequest(model="tiny_gaussian", seed=seed, steps=steps, count=2)
    response = await service.generate_images(request, RequestContext(deadline=monotonic() + DEADLINE))
    return b"".join(image.data for image in response.images)


async def until_answered(service: Service) -> float:
    """How long it takes until a picture is drawn again."""
    began = monotonic()
    while monotonic() - began < DEADLINE:
        try:
            await ask(service, 0, steps=2)
            break
        except ServingError:
            await asyncio.sleep(0.02)
    return monotonic() - began


async def test_a_killed_triton_leaves_no_request_hanging_and_is_served_again_within_two_seconds(
    gaussians: Path,
) -> None:
    server = TritonServer(gaussians)
    server.start()
    settings = Settings(backend="triton", triton_url=server.grpc_address)
    outcomes: Counter[str] = Counter()
    pictures: dict[int, set[bytes]] = {}
    longest = 0.0
    stop = asyncio.Event()

    async def client(service: Service, number: int) -> None:
        nonlocal longest
        while not stop.is_set():
            began = monotonic()
            try:
                pictures.setdefault(number, set()).add(await ask(service, number))
                outcomes["OK"] += 1
            except ServingError as error:
                outcomes[error.code.name] += 1
                await asyncio.sleep(0.05)
            longest = max(longest, monotonic() - began)

    try:
        async with open_service(settings, CollectorRegistry()) as service:
            await loaded(service)
            clients = [asyncio.create_task(client(service, number)) for number in range(16)]
            for _ in range(2):
                await asyncio.sleep(0.5)
                before = outcomes["OK"]
                server.kill()
                await asyncio.sleep(0.5)
                await asyncio.to_thread(server.start)
                assert await until_answered(service) < 2
                assert service.ready()
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*clients)
            assert outcomes["OK"] > before
    finally:
        server.close()
    # Where calls have become slow, not all that is asked can be answered in time.
    assert {"OK", "UNAVAILABLE"} <= set(outcomes) <= {"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    assert longest < DEADLINE
    assert {len(drawn) for drawn in pictures.values()} == {1}, "a seed draws the same bytes before and after"


async def test_a_gateway_that_starts_before_its_triton_is_ready_when_that_is(gaussians: Path) -> None:
    server = TritonServer(gaussians)
    settings = Settings(backend="triton", triton_url=server.grpc_address)
    try:
        async with open_service(settings, CollectorRegistry()) as service:
            reason = service.not_ready_reason()
            assert reason is not None
            assert "no Triton answers" in reason
            with pytest.raises(ServingError):
                await ask(service, 0)
            await asyncio.to_thread(server.start)
            await loaded(service)
            assert service.ready()
            await ask(service, 0)
            assert service.card("tiny_gaussian") is None
            assert service.samples("tiny_gaussian") is None
    finally:
        server.close()

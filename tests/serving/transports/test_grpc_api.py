"""The service over gRPC, asked by stock clients over a real port."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.errors import Code
from serving.pb import image_generation_pb2 as pb
from serving.pb.image_generation_pb2_grpc import ImageGenerationStub
from serving.process.ports import PortError
from serving.service import Service
from serving.settings import Settings
from serving.transports.grpc_api import GrpcServer
from serving.transports.grpc_errors import GRPC_CODES
from serving.transports.methods import METHODS, SERVICE


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server under test."""

    channel: grpc.aio.Channel
    stub: Any
    stopping: asyncio.Event


@asynccontextmanager
async def serve(service: Service, not_ready: Callable[[], str | None] = lambda: None, **values: Any):
    settings = Settings(grpc_port=0, **values)
    server = GrpcServer(service, settings, not_ready)
    stopping = asyncio.Event()
    task = asyncio.create_task(server.run(stopping))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = ImageGenerationStub(channel)
            yield Running(channel=channel, stub=stub, stopping=stopping)
    finally:
        stopping.set()
        await task


@pytest.fixture
async def running(service: Service) -> AsyncIterator[Running]:
    async with serve(service) as opened:
        yield opened


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    return status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])


async def test_every_rpc_of_the_proto_reaches_its_method(running: Running):
    """None answers UNIMPLEMENTED as gRPC itself would: those that are not there yet say so in our words."""
    answered = {}
    for method in METHODS.values():
        call = getattr(running.stub, method.rpc)(method.request())
        try:
            async for _ in call if method.streams else as_stream(call):
                pass
            answered[method.rpc] = None
        except grpc.aio.AioRpcError as error:
            answered[method.rpc] = error
    assert answered["ListModels"] is None
    for rpc in ("EditImages", "ScoreImages"):
        assert answered[rpc].code() == grpc.StatusCode.UNIMPLEMENTED
        assert "not there yet" in answered[rpc].details()
    for rpc in set(METHODS) - {"ListModels", "EditImages", "ScoreImages"}:
        assert answered[rpc].code() == grpc.StatusCode.INVALID_ARGUMENT, rpc
        assert answered[rpc].details().startswith("model is not given"), rpc


async def as_stream(call: Any) -> AsyncIterator[Any]:
    yield await call


async def test_a_generated_picture_can_be_had_again_by_its_seed(running: Running):
    first = await running.stub.GenerateImages(pb.GenerateImagesRequest(model="tiny_gan", class_label="one"))
    again = await running.stub.GenerateImages(
        pb.GenerateImagesRequest(model="tiny_gan", class_label="one", seed=first.run.seed)
    )
    assert again.images[0].data == first.images[0].data


async def test_a_stream_ends_with_what_the_plain_call_gives(running: Running):
    request = pb.GenerateImagesRequest(model="tiny_gaussian", seed=3, count=2, preview_every=2)
    events = [event async for event in running.stub.StreamGenerateImages(request)]
    steps = [event.progress.step for event in events if event.HasField("progress")]
    assert steps == sorted(steps)
    assert any(event.progress.previews for event in events)
    plain = await running.stub.GenerateImages(request)
    assert [image.data for image in events[-1].result.images] == [image.data for image in plain.images]


async def test_an_error_carries_its_code_its_words_and_the_field(running: Running):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.GenerateImages(pb.GenerateImagesRequest(model="tiny_gan", class_label="eleven"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "eleven" in caught.value.details()
    status = details(caught.value)
    assert status.code == caught.value.code().value[0]
    request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(request)
    assert request.field_violations[0].field == "class_label"


async def test_a_refusal_says_when_to_come_again(open_tiny: Any):
    async with open_tiny(max_pending_rows=1) as service, serve(service) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GenerateImages(pb.GenerateImagesRequest(model="tiny_gan", count=200))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_error_inside_is_logged_and_not_told(service: Service, caplog: pytest.LogCaptureFixture):
    def broken(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    service.list_models = broken  # a fault where no request can be at fault
    async with serve(service) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.ListModels(pb.ListModelsRequest(), metadata=(("x-request-id", "r-17"),))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert "r-17" in caught.value.details()
    assert "the secret of the house" in caplog.text
    assert "r-17" in caplog.text


async def test_every_code_has_its_status():
    assert {GRPC_CODES[code].name for code in Code} == set(Code)


async def test_a_deadline_that_passes_is_deadline_exceeded(running: Running):
    request = pb.GenerateImagesRequest(model="tiny_gaussian", count=64, steps=200)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.GenerateImages(request, timeout=0.02)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_cancelled_call_cancels_the_work(service: Service):
    began, cancelled = asyncio.Event(), asyncio.Event()
    generate = service.generate_images

    async def watched(*arguments: Any) -> Any:
        began.set()
        try:
            return await generate(*arguments)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    service.generate_images = watched
    async with serve(service) as running:
        call = running.stub.GenerateImages(
            pb.GenerateImagesRequest(model="tiny_gaussian", count=256, steps=200)
        )
        await asyncio.wait_for(began.wait(), 20)
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 20)


async def test_a_message_over_the_limit_is_refused(service: Service):
    async with serve(service, max_message_bytes=65_536) as running:
        image = pb.Image(data=bytes(100_000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.TranslateImages(
                pb.TranslateImagesRequest(model="tiny_translator", images=[image])
            )
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_follows_readiness_and_turns_first_when_stopping(service: Service):
    reasons: list[str | None] = ["still loading"]
    async with serve(service, lambda: reasons[0]) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
        seen = watch.__aiter__()

        async def next_status() -> str:
            update = await asyncio.wait_for(anext(seen), 10)
            return health_pb2.HealthCheckResponse.ServingStatus.Name(update.status)

        assert await next_status() == "NOT_SERVING"
        reasons[0] = None
        assert await next_status() == "SERVING"
        running.stopping.set()
        assert await next_status() == "NOT_SERVING"


async def test_whoever_watches_the_health_does_not_hold_the_end_up(service: Service):
    async with serve(service, shutdown_grace=60) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watches.pop().cancel()
        async with asyncio.timeout(30):
            running.stopping.set()
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                assert await watch.read() == grpc.aio.EOF


async def test_calls_under_way_finish_when_the_server_stops(service: Service):
    async with serve(service, shutdown_grace=30) as running:
        call = running.stub.StreamGenerateImages(
            pb.GenerateImagesRequest(model="tiny_gaussian", count=32, steps=100, seed=1)
        )
        events = call.__aiter__()
        await anext(events)
        running.stopping.set()
        last = [event async for event in events][-1]
    assert len(last.result.images) == 32


async def test_reflection_lists_the_services(running: Running):
    reflection = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    async def requests() -> AsyncIterator[Any]:
        yield request

    async for answer in reflection.ServerReflectionInfo(requests()):
        names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE.full_name, "grpc.health.v1.Health"} <= names


async def test_a_taken_port_is_named_with_its_flag(service: Service):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"127\.0\.0\.1:{port}.*--grpc-port"):
            GrpcServer(service, Settings(grpc_port=port), lambda: None)

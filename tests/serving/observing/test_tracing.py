"""Spans from transport to picture, and what they are tied to."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, Tracer
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from serving.backends import BACKENDS
from serving.backends.onnxruntime import OnnxRuntimeBackend
from serving.calls import Computed, Tensors
from serving.client.gateway import free_ports
from serving.errors import ServingError
from serving.observing.telemetry import open_tracer
from serving.observing.tracing import current, inject
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.pb.image_generation_pb2_grpc import ImageGenerationStub
from serving.service import Service
from serving.settings import Settings
from serving.transports.grpc_api import build_server
from serving.transports.http_api import create_app

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


class Traced:
    """A traced gateway, asked in this process over real transports."""

    def __init__(self, service: Service, exporter: InMemorySpanExporter, registry: CollectorRegistry) -> None:
        self.service = service
        self.registry = registry
        self._exporter = exporter

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        names = [span.name for span in self._exporter.get_finished_spans()]
        assert names.count(name) == 1, names
        return self.spans(name)[0]

    async def over_http(self, path: str, body: object, **headers: str) -> httpx.Response:
        app = create_app(self.service, Settings(), self.registry, lambda: None)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30) as client:
            return await client.post(f"/v1/models/{path}", json=body, headers=headers)


@pytest.fixture
async def traced(
    tiny_repository: Path, tracer: Tracer, exporter: InMemorySpanExporter
) -> AsyncIterator[Traced]:
    registry = CollectorRegistry()
    settings = Settings(repository=tiny_repository, device="cpu", instances=1)
    async with open_service(settings, registry, tracer) as service:
        await service.wait_loaded()
        yield Traced(service, exporter, registry)


@pytest.fixture
async def stub(traced: Traced) -> AsyncIterator[Any]:
    server = build_server(traced.service, Settings())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ImageGenerationStub(channel)
    await server.stop(None)


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent in hexadecimal."""
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{parent.span_id:016x}" if parent else ""


RPC = "atelier.v1.ImageGeneration/GenerateImages"


async def test_a_request_over_grpc_continues_the_clients_trace_down_to_its_calls(traced: Traced, stub: Any):
    asked = pb.GenerateImagesRequest(model="tiny_gaussian", steps=3, sampler="ddim")
    metadata = (("traceparent", TRACEPARENT), ("x-request-id", "r-17"))
    await stub.GenerateImages(asked, metadata=metadata)
    request = traced.span(RPC)
    trace, own, parent = ids(request)
    assert (trace, parent) == (TRACE, PARENT)
    assert request.kind == SpanKind.SERVER
    assert request.attributes is not None
    said = {key.removeprefix("atelier."): value for key, value in request.attributes.items()}
    assert said["request_id"] == "r-17"
    assert (said["model"], said["version"], said["task"], said["code"]) == (
        "tiny_gaussian",
        "1",
        "generate",
        "OK",
    )
    steps, queues, calls = (traced.spans(f"{kind} tiny_gaussian") for kind in ("step", "queue", "call"))
    assert len(steps) == len(queues) == len(calls) == 3
    assert {ids(step)[2] for step in steps} == {own}
    assert [ids(queue)[2] for queue in queues] == [ids(step)[1] for step in steps]
    assert [ids(call)[2] for call in calls] == [ids(step)[1] for step in steps]
    assert ids(traced.span("encode"))[2] == own
    assert all(ids(span)[0] == TRACE for span in (*steps, *queues, *calls))


async def test_a_call_is_linked_with_the_steps_of_all_requests_in_it(traced: Traced, stub: Any):
    def ask(seed: int) -> Any:
        return stub.GenerateImages(pb.GenerateImagesRequest(model="tiny_gaussian", steps=40, seed=seed))

    await asyncio.gather(*(ask(seed) for seed in range(6)))
    steps = {ids(step)[1]: step for step in traced.spans("step tiny_gaussian")}
    shared = [call for call in traced.spans("call tiny_gaussian") if len(call.links) > 1]
    assert shared
    for call in shared:
        linked = [f"{link.context.span_id:016x}" for link in call.links]
        assert call.attributes is not None
        assert len(linked) == call.attributes["atelier.requests"]
        assert ids(call)[2] == linked[0]
        for step in linked[1:]:
            assert ids(call)[1] in {f"{link.context.span_id:016x}" for link in steps[step].links}


async def test_a_request_over_http_is_traced_and_so_are_the_pictures_it_brings(traced: Traced):
    raw = pb.Image(data=bytes(3 * 64), width=8, height=8, channels=3, format=pb.IMAGE_FORMAT_RAW_U8)
    body = {"direction": "a_to_b", "images": [MessageToDict(raw)]}
    response = await traced.over_http("tiny_translator:translate", body, traceparent=TRACEPARENT)
    assert response.status_code == 200
    request = traced.span("POST v1")
    assert ids(request)[::2] == (TRACE, PARENT)
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert ids(traced.span("decode"))[2] == ids(traced.span("encode"))[2] == ids(request)[1]


async def test_the_span_of_a_stream_lasts_to_its_end(traced: Traced, stub: Any):
    asked = pb.GenerateImagesRequest(model="tiny_gaussian", steps=4, preview_every=2)
    events = [event async for event in stub.StreamGenerateImages(asked)]
    assert events[-1].HasField("result")
    request = traced.span("atelier.v1.ImageGeneration/StreamGenerateImages")
    encoded = traced.spans("encode")
    assert len(encoded) == 2
    assert all((span.end_time or 0) <= (request.end_time or 0) for span in encoded)
    response = await traced.over_http("tiny_gaussian:streamGenerate", {"steps": 4})
    assert "event: result" in response.text
    assert len(traced.spans("POST v1")) == 1


async def test_a_clients_mistake_is_no_error_of_the_gateways(traced: Traced, stub: Any):
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.GenerateImages(pb.GenerateImagesRequest(model="nobody"))
    request = traced.span(RPC)
    assert request.attributes is not None
    assert request.attributes["atelier.code"] == "NOT_FOUND"
    assert request.attributes["atelier.model"] == "unknown"


async def test_a_cancelled_request_ends_its_spans(traced: Traced, stub: Any):
    call = stub.GenerateImages(pb.GenerateImagesRequest(model="tiny_gaussian", steps=200, count=256))
    async with asyncio.timeout(20):
        while not traced.spans("step tiny_gaussian"):
            await asyncio.sleep(0.01)
        call.cancel()
        while not traced.spans(RPC):
            await asyncio.sleep(0.01)
    begun = traced.spans("step tiny_gaussian")
    assert begun
    assert all(step.end_time for step in begun)
    assert traced.span(RPC).attributes["atelier.code"] == "CANCELLED"  # type: ignore[index]


async def test_latency_histograms_carry_the_trace_as_exemplar(traced: Traced, stub: Any):
    asked = pb.GenerateImagesRequest(model="tiny_gaussian", steps=2)
    await stub.GenerateImages(asked, metadata=(("traceparent", TRACEPARENT),))
    text = generate_latest(traced.registry).decode()
    for name in ("request", "queue", "call", "encode"):
        with_exemplar = [
            line
            for line in text.splitlines()
            if line.startswith(f"atelier_{name}_seconds_bucket") and TRACE in line
        ]
        assert with_exemplar, name


class Injecting(OnnxRuntimeBackend):
    """Keeps the headers that it would send along with each call."""

    headers: list[dict[str, str]] = []  # noqa: RUF012 - of the class, which the settings make an instance of

    async def infer(
        self, graph: str, version: int, inputs: Tensors, *, first: bool = False, here: bool = False
    ) -> Computed:
        self.headers.append(inject())
        return await super().infer(graph, version, inputs, first=first, here=here)


async def test_a_backend_hands_the_trace_on(
    tiny_repository: Path, tracer: Tracer, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
):
    Injecting.headers.clear()
    monkeypatch.setitem(BACKENDS, "injecting", f"{__name__}:Injecting")
    settings = Settings(repository=tiny_repository, device="cpu", backend="injecting", instances=1)
    registry = CollectorRegistry()
    async with open_service(settings, registry, tracer) as service:
        await service.wait_loaded()
        Injecting.headers.clear()
        traced = Traced(service, exporter, registry)
        await traced.over_http("tiny_gan:generate", {"classId": 0}, traceparent=TRACEPARENT)
    (headers,) = [headers for headers in Injecting.headers if headers]
    call = traced.span("call tiny_gan")
    assert headers["traceparent"] == f"00-{TRACE}-{ids(call)[1]}-01"


async def test_what_is_not_sampled_costs_no_spans_and_leaves_no_trace(
    tiny_repository: Path, exporter: InMemorySpanExporter
):
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    registry = CollectorRegistry()
    settings = Settings(repository=tiny_repository, device="cpu", instances=1)
    async with open_service(settings, registry, provider.get_tracer("test")) as service:
        await service.wait_loaded()
        traced = Traced(service, exporter, registry)
        assert (await traced.over_http("tiny_gan:generate", {"classId": 0})).status_code == 200
    assert not exporter.get_finished_spans()
    assert current() is None
    assert "trace_id" not in generate_latest(registry).decode()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A real OTLP receiver, which keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.came = threading.Event()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - of the protocol
        self.received += request.resource_spans
        self.came.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, int]]:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, port
    server.stop(None)


@contextmanager
def gateway(repository: Path, *flags: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Address of HTTP and process of a gateway in a process of its own."""
    ports = free_ports(3)
    command = [sys.executable, "-m", "atelier", "serve", "--repository", str(repository), *flags]
    for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{name}-port", str(port)]
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("ready"):
                    break
            yield f"http://127.0.0.1:{ports[0]}", process
        finally:
            process.kill()


def test_the_command_sends_spans_where_the_standard_variables_say(tiny_repository: Path):
    with collecting() as (collector, port):
        endpoint = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_SERVICE_NAME": "paintings",
        }
        with gateway(tiny_repository, **endpoint) as (address, process):
            body = {"classId": 0}
            response = httpx.post(
                f"{address}/v1/models/tiny_gan:generate", json=body, headers={"traceparent": TRACEPARENT}
            )
            assert response.status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert collector.came.wait(10)
    (resource,) = collector.received
    said = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert said["service.name"] == "paintings"
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {"POST v1", "step tiny_gan", "queue tiny_gan", "call tiny_gan", "encode"} <= {
        span.name for span in spans
    }


def test_a_collector_that_is_gone_troubles_no_request_and_no_stop(tiny_repository: Path):
    (nowhere,) = free_ports(1)
    with gateway(
        tiny_repository, "--log-format", "json", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{nowhere}"
    ) as (address, process):
        for _ in range(3):
            assert (
                httpx.post(f"{address}/v1/models/tiny_gan:generate", json={"classId": 0}).status_code == 200
            )
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        for line in process.stderr:
            assert json.loads(line)["level"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1"},
    ],
)
async def test_without_an_endpoint_or_when_switched_off_there_is_no_tracer(environment: dict[str, str]):
    async with open_tracer(environment) as tracer:
        assert tracer is None


@pytest.mark.parametrize(
    ("environment", "match"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin is not supported"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/json is not supported",
        ),
    ],
)
async def test_what_cannot_be_sent_is_said_at_the_start(environment: dict[str, str], match: str):
    with pytest.raises(ServingError, match=match):
        async with open_tracer(environment):
            raise AssertionError("opened")

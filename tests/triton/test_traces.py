"""A request's trace goes on inside of Triton."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext
from prometheus_client import CollectorRegistry

from serving.observing.tracing import request_span
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext
from serving.settings import Settings
from tests.triton.server import few_instances, loaded, need_triton, triton_server

CALL = "call tiny_gan"

ASKED = 10
"""Requests: of one call in ten to forty this Triton loses the context, whoever sent it."""


@contextmanager
def collecting() -> Iterator[tuple[list[tuple[str, str]], int]]:
    """Trace and parent of each span that comes in over OTLP/HTTP, as JSON as Triton has it; and the port."""
    parents: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in body["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    parents.extend((span["traceId"], span.get("parentSpanId", "")) for span in scope["spans"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield parents, server.server_address[1]
        server.shutdown()


async def test_tritons_own_spans_stand_below_the_call(tiny_repository: Path, tmp_path: Path):
    need_triton()
    shutil.copytree(tiny_repository / "tiny_gan", tmp_path / "alone/tiny_gan")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with collecting() as (parents, port):
        flags = [
            "--trace-config=mode=opentelemetry",
            "--trace-config=rate=1",
            "--trace-config=level=TIMESTAMPS",
        ]
        flags += [f"--trace-config=opentelemetry,url=http://127.0.0.1:{port}/v1/traces"]
        flags += ["--trace-config=opentelemetry,bsp_schedule_delay=100"]
        repository = few_instances(tmp_path / "alone", tmp_path / "triton")
        with triton_server(repository, flags=flags) as server:
            settings = Settings(repository=repository, backend="triton", triton_url=server.grpc_address)
            async with open_service(settings, CollectorRegistry(), tracer) as service:
                await loaded(service)
                for seed in range(ASKED):
                    with request_span(tracer, "request", {}, {}):
                        asked = pb.GenerateImagesRequest(model="tiny_gan", class_id=0, seed=seed)
                        await service.generate_images(asked, RequestContext())
            calls = {
                named(span.get_span_context()) for span in exporter.get_finished_spans() if span.name == CALL
            }
            assert len(calls) == ASKED
            until = time.monotonic() + 20
            while calls.isdisjoint(parents) and time.monotonic() < until:
                await asyncio.sleep(0.05)
            assert not calls.isdisjoint(parents)


def named(context: SpanContext) -> tuple[str, str]:
    """Trace and span as Triton writes them."""
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"

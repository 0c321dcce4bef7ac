"""What it costs to be watched: by metrics, by traces, and by whoever scrapes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.contenders import by_itself
from benchmarks.counting import count
from benchmarks.load import closed_loop
from benchmarks.mixes import Ask, Mix, alike, mixed
from benchmarks.peers.atelier import Atelier, serve
from benchmarks.plan import Plan
from benchmarks.processes import cpu_seconds
from benchmarks.scenarios import Tell
from benchmarks.summary import percentile, take_turns
from serving.catalog import build, scan

_SCRAPES = 200
# As Prometheus does: on one connection, in the format that it likes best.
_ACCEPT = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
_SCRAPER = """
import http.client, sys, time, urllib.parse
to = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(to.netloc)
while True:
    began = time.perf_counter()
    connection.request("GET", to.path, headers={"Accept": sys.argv[2]})
    connection.getresponse().read()
    print(time.perf_counter() - began, flush=True)
    time.sleep(0.2)
"""
_OFTEN = 20
_TIMES = {"nothing": 0, "once": 1, "often": _OFTEN}  # one process, see benchmarks.counting


async def watching(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Rates and CPU-seconds of requests by model and by how they are watched, and of scrapes."""
    models = build(scan(plan.repository)).models
    mixes: dict[str, Mix] = {}
    for name in (plan.diffusion[-1], plan.one_pass[0]):
        if name in models:
            classes = len(models[name].first.class_labels)
            one = alike(Ask(model=name, seed=0, class_id=0), classes=classes)
            mixes[name] = mixed(name, classes=classes) if models[name].denoiser else one
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(_collector())
        open_here = partial(serve, plan.repository, "--instances", str(plan.cores))
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        counting = await stack.enter_async_context(open_here(module="benchmarks.counting"))
        traced = await stack.enter_async_context(open_here(environment=endpoint))
        rates = {}
        for name, mix in mixes.items():
            loads: dict[str, tuple[Atelier, int | None]] = {
                **{how: (counting, times) for how, times in _TIMES.items()},
                "traced": (traced, None),
            }
            contenders = {
                how: partial(
                    by_itself, gateway, [counting, traced], partial(_loaded, plan, gateway, mix, times)
                )
                for how, (gateway, times) in loads.items()
            }
            rates[name] = await take_turns(
                plan.runs, contenders, lambda words, name=name: tell(f"{name}, {words}")
            )
        tell("scrapes")
        count(counting.process_id, 1)
        scrapes = await _scrapes(plan, counting, mixes)
    return {"models": rates, "often": _OFTEN, "scrapes": scrapes}


async def _loaded(plan: Plan, gateway: Atelier, mix: Mix, times: int | None = None) -> dict[str, float]:
    if times is not None:
        count(gateway.process_id, times)
    began = cpu_seconds(gateway.process_id)
    load = await closed_loop(
        gateway.send, mix, clients=plan.clients, warm_up=plan.warm_up, seconds=plan.seconds
    )
    took = cpu_seconds(gateway.process_id) - began
    rows = sum(answer.ask.rows for answer in load.answers if answer.outcome == "ok")
    return {"rows": load.credit(lambda ask: ask.rows), "cpu_seconds_a_row": took / rows}


async def _scrapes(plan: Plan, gateway: Atelier, mixes: dict[str, Mix]) -> dict[str, Any]:
    """Times of scrapes in the middle of a saturated load, and CPU time of one with nothing else going on."""
    # By a process of its own, as this one is busy with the load.
    scraper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SCRAPER, gateway.metrics_url, _ACCEPT, stdout=subprocess.PIPE
    )
    for mix in mixes.values():
        await closed_loop(gateway.send, mix, clients=plan.clients, warm_up=0, seconds=plan.seconds)
    scraper.terminate()
    said, _ = await scraper.communicate()
    times = [float(line) for line in said.split()]
    page = await asyncio.to_thread(gateway.metrics_page)
    began = cpu_seconds(gateway.process_id)
    for _ in range(_SCRAPES):
        await asyncio.to_thread(gateway.metrics_page)
    return {
        "series": sum(not line.startswith("#") for line in page.splitlines()),
        "loaded_p50": percentile(times, 50),
        "loaded_p95": percentile(times, 95),
        "cpu_seconds": (cpu_seconds(gateway.process_id) - began) / _SCRAPES,
    }


class _Sink(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans and forgets them."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - of the protocol
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def _collector() -> AsyncIterator[int]:
    """Port of an OTLP collector."""
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Sink(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None)

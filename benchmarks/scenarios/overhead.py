"""What the gateway adds to a call: a single image, asked over gRPC and HTTP with nothing else going on."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from benchmarks.http_client import HttpClient
from benchmarks.mixes import Ask
from benchmarks.peers.atelier import CALIBRATED_AFTER, json_body, serve
from benchmarks.plan import Plan
from benchmarks.raw import RawLoop
from benchmarks.scenarios import Tell
from benchmarks.summary import percentile
from serving.catalog import build, scan

_REQUESTS = 200
_IN_A_ROW = 20  # of one protocol: nobody turns from one to the other and back with each request


async def overhead(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Latency of requests and of raw calls, in seconds, taking turns."""
    models = build(scan(plan.repository)).models
    model = next((name for name in plan.one_pass if name in models), None)
    if model is None:
        return {}
    graph = models[model].drawn
    assert graph is not None, "a model of one pass has a graph that draws"
    raw = RawLoop(plan.repository, graph)
    runs = []
    async with serve(plan.repository) as atelier, HttpClient(atelier.http_port) as http:
        await asyncio.sleep(CALIBRATED_AFTER)
        for run in range(plan.runs):
            tell(f"overhead of {model}, run {run + 1} of {plan.runs}")
            times: list[float] = []
            http_times: list[float] = []
            for first in range(0, _REQUESTS, _IN_A_ROW):
                for seed in range(first, first + _IN_A_ROW):
                    ask = Ask(model=model, seed=seed, class_id=0)
                    began = perf_counter()
                    await atelier.send(ask)
                    times.append(perf_counter() - began)
                for seed in range(first, first + _IN_A_ROW):
                    ask = Ask(model=model, seed=_REQUESTS + seed, class_id=0)
                    began = perf_counter()
                    status, body = await http.post(f"/v1/models/{model}:generate", json_body(ask))
                    if status != 200:
                        raise RuntimeError(f"a request over HTTP was answered with {status}: {body!r}")
                    http_times.append(perf_counter() - began)
            calls = await asyncio.to_thread(raw.seconds_per_call, 1, _REQUESTS)
            runs.append(
                {
                    "request_p50": percentile(times, 50),
                    "request_p95": percentile(times, 95),
                    "http_p50": percentile(http_times, 50),
                    "call_p50": percentile(calls, 50),
                    "overhead_p50": percentile(times, 50) - percentile(calls, 50),
                }
            )
    return {"model": model, "runs": runs}

"""What the step loop itself costs: everything but transport and graph, per row and step."""

from __future__ import annotations

import asyncio
from time import monotonic, process_time
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.load import closed_loop
from benchmarks.mixes import Ask, mixed
from benchmarks.peers.atelier import message
from benchmarks.plan import Plan
from benchmarks.raw import Raw, RawLoop
from benchmarks.scenarios import Tell
from serving.backends import BACKENDS
from serving.catalog import build, scan
from serving.errors import ServingError
from serving.opening import open_service
from serving.requests.context import RequestContext
from serving.service import Service
from serving.settings import Settings

_BATCH = 8
_RAW_SECONDS = 1.0


async def step_loop(plan: Plan, tell: Tell) -> dict[str, Any]:
    """CPU-seconds a row of the gateway's own work, and of the graph's call, by model."""
    BACKENDS["null"] = "benchmarks.scenarios.null_backend:NullBackend"
    models = build(scan(plan.repository)).models
    results = {}
    for model in plan.diffusion:
        if model not in models:
            continue
        graph = models[model].denoiser
        assert graph is not None, "a diffusion model has a denoiser"
        raw = RawLoop(plan.repository, graph, rewrite=True)
        runs = []
        for run in range(plan.runs):
            tell(f"step loop of {model}, run {run + 1} of {plan.runs}")
            how = Raw(batch=_BATCH, threads=1, sessions=plan.cores)
            rate = await asyncio.to_thread(raw.rows_per_second, how, min(_RAW_SECONDS, plan.seconds))
            own = await _own_seconds(plan, model, graph.graph, len(graph.class_labels))
            runs.append({"own": own, "call": plan.cores / rate, "share": own * rate / plan.cores})
        results[model] = runs
    return results


async def _own_seconds(plan: Plan, model: str, graph: str, classes: int) -> float:
    """CPU time of this process for each row of a saturated, mixed load on a backend that computes nothing."""
    registry = CollectorRegistry()
    settings = Settings(repository=plan.repository, backend="null", instances=plan.cores)
    async with open_service(settings, registry) as service:
        await service.wait_loaded()

        async def send(ask: Ask) -> str:
            return await _ask(service, ask)

        began, rows = process_time(), _rows(registry, graph)
        await closed_loop(
            send,
            mixed(model, classes=classes),
            clients=plan.clients,
            warm_up=0,
            seconds=min(2.0, plan.seconds),
        )
        return (process_time() - began) / (_rows(registry, graph) - rows)


async def _ask(service: Service, ask: Ask) -> str:
    try:
        context = RequestContext(deadline=monotonic() + ask.timeout)
        answer = await service.generate_images(message(ask), context)
    except ServingError:
        return "failed"
    return "ok" if len(answer.images) == ask.count else "failed"


def _rows(registry: CollectorRegistry, graph: str) -> float:
    return registry.get_sample_value("atelier_rows_total", {"graph": graph}) or 0.0

"""Diffusion, saturated with requests of every kind, against the raw loop and the peers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from benchmarks.contenders import by_itself, open_peers
from benchmarks.figures import figures
from benchmarks.load import closed_loop
from benchmarks.mixes import mixed
from benchmarks.peers import Server, Setting
from benchmarks.peers.atelier import CALIBRATED_AFTER, batch_rows, serve
from benchmarks.plan import Plan
from benchmarks.raw import RawLoop
from benchmarks.scenarios import Tell
from benchmarks.summary import take_turns
from serving.catalog import build, scan

_BATCHES = [1, 2, 4, 8, 16, 32]
_SWEEP_SECONDS = 0.7


async def saturated(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Figures by model."""
    there = build(scan(plan.repository)).models
    known: dict[str, Setting] = {}
    return {
        model: await _saturated(plan, model, known, tell)
        for model in plan.diffusion
        if model in there and there[model].denoiser
    }


async def _saturated(plan: Plan, model: str, known: dict[str, Setting], tell: Tell) -> dict[str, Any]:
    graph = build(scan(plan.repository)).models[model].denoiser
    assert graph is not None, "models without a denoiser are left out"
    mix = mixed(model, classes=len(graph.class_labels))
    raw = RawLoop(plan.repository, graph)
    tell(f"{model}: raw onnxruntime at every batch size")
    sweep = await asyncio.to_thread(raw.sweep, plan.cores, _BATCHES, min(_SWEEP_SECONDS, plan.seconds))
    best = max(sweep, key=sweep.__getitem__)

    async with AsyncExitStack() as stack:
        atelier = await stack.enter_async_context(
            serve(plan.repository, "--instances", str(plan.cores), "--threads", "1")
        )
        await asyncio.sleep(CALIBRATED_AFTER)
        servers, trials = await open_peers(stack, plan, model, mix, plan.clients, known, [atelier], tell)
        everyone: dict[str, Server] = {"atelier": atelier, **servers}

        async def of_raw() -> dict[str, Any]:
            return {"rows": await asyncio.to_thread(raw.rows_per_second, best, plan.seconds)}

        async def of(server: Server) -> dict[str, Any]:
            load = await closed_loop(
                server.send, mix, clients=plan.clients, warm_up=plan.warm_up, seconds=plan.seconds
            )
            return figures(load)

        contenders = {"raw": partial(by_itself, None, everyone.values(), of_raw)} | {
            name: partial(by_itself, server, everyone.values(), partial(of, server))
            for name, server in everyone.items()
        }
        runs = await take_turns(plan.runs, contenders, lambda words: tell(f"{model}, {words}"))
        formed = batch_rows(atelier.metrics(), graph.graph)
    return {
        "sweep": [
            {"batch": how.batch, "threads": how.threads, "sessions": how.sessions, "rows": rate}
            for how, rate in sweep.items()
        ],
        "best": str(best),
        "clients": plan.clients,
        "runs": runs,
        "settings": trials,
        "batch_rows": formed,
    }

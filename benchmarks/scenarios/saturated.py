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
    # The limit is of the file that all of them serve; beside it that of the graph that Atelier makes of it.
    raw = {
        name: RawLoop(plan.repository, graph, rewrite=name == "rewritten") for name in ("raw", "rewritten")
    }
    sweeps, best = {}, {}
    for name, loop in raw.items():
        tell(f"{model}: {name} onnxruntime at every batch size")
        seconds = min(_SWEEP_SECONDS, plan.seconds)
        sweeps[name] = await asyncio.to_thread(loop.sweep, plan.cores, _BATCHES, seconds)
        best[name] = await asyncio.to_thread(loop.best, sweeps[name], plan.seconds / 2)

    async with AsyncExitStack() as stack:
        atelier = await stack.enter_async_context(
            serve(plan.repository, "--instances", str(plan.cores), "--threads", "1")
        )
        await asyncio.sleep(CALIBRATED_AFTER)
        servers, trials = await open_peers(stack, plan, model, mix, plan.clients, known, [atelier], tell)
        everyone: dict[str, Server] = {"atelier": atelier, **servers}

        async def of_raw(name: str) -> dict[str, Any]:
            return {"rows": await asyncio.to_thread(raw[name].rows_per_second, best[name], plan.seconds)}

        async def of(server: Server) -> dict[str, Any]:
            load = await closed_loop(
                server.send, mix, clients=plan.clients, warm_up=plan.warm_up, seconds=plan.seconds
            )
            return figures(load)

        contenders = {
            name: partial(by_itself, None, everyone.values(), partial(of_raw, name)) for name in raw
        } | {
            name: partial(by_itself, server, everyone.values(), partial(of, server))
            for name, server in everyone.items()
        }
        runs = await take_turns(plan.runs, contenders, lambda words: tell(f"{model}, {words}"))
        formed = batch_rows(atelier.metrics(), graph.graph)
    return {
        "sweep": [
            {"batch": how.batch, "threads": how.threads, "sessions": how.sessions, "rows": rate}
            for how, rate in sweeps["raw"].items()
        ],
        "best": str(best["raw"]),
        "best_rewritten": str(best["rewritten"]),
        "clients": plan.clients,
        "runs": runs,
        "settings": trials,
        "batch_rows": formed,
    }

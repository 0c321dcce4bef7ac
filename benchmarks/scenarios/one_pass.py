"""Models of one pass: requests of sixteen images against the raw loop, single images against the peers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from benchmarks.contenders import by_itself, open_peers
from benchmarks.figures import figures
from benchmarks.http_client import HttpClient
from benchmarks.load import closed_loop
from benchmarks.mixes import Ask, Mix, alike
from benchmarks.peers import Server
from benchmarks.peers.atelier import CALIBRATED_AFTER, AtelierOverHttp, serve
from benchmarks.plan import Plan
from benchmarks.raw import RawLoop
from benchmarks.scenarios import Tell
from benchmarks.summary import take_turns
from serving.catalog import build, scan

_BATCHES = [1, 2, 4, 8, 16, 32, 64]
_SWEEP_SECONDS = 0.4
_SINGLE_CLIENTS = 32
_MANY, _MANY_CLIENTS = 16, 32


async def one_pass(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Figures of the first model of one pass that the repository has."""
    models = build(scan(plan.repository)).models
    model = next((name for name in plan.one_pass if name in models), None)
    if model is None:
        return {}
    graph = models[model].drawn
    assert graph is not None, "a model of one pass has a graph that draws"
    classes = max(1, len(graph.class_labels))
    single = alike(Ask(model=model, seed=0, class_id=0), classes=classes)
    many = alike(Ask(model=model, seed=0, class_id=0, count=_MANY), classes=classes)
    raw = RawLoop(plan.repository, graph)
    tell(f"{model}: raw onnxruntime at every batch size")
    sweep = await asyncio.to_thread(raw.sweep, plan.cores, _BATCHES, min(_SWEEP_SECONDS, plan.seconds))
    best = await asyncio.to_thread(raw.best, sweep, plan.seconds / 2)
    seconds = plan.seconds / 2

    async with AsyncExitStack() as stack:
        atelier = await stack.enter_async_context(
            serve(plan.repository, "--instances", str(plan.cores), "--threads", "1")
        )
        await asyncio.sleep(CALIBRATED_AFTER)
        servers, trials = await open_peers(stack, plan, model, single, _SINGLE_CLIENTS, {}, [atelier], tell)
        everyone: dict[str, Server] = {"atelier": atelier, **servers}

        async def of_raw() -> dict[str, Any]:
            return {"rows": await asyncio.to_thread(raw.rows_per_second, best, seconds)}

        async def of(server: Server, mix: Mix, clients: int) -> dict[str, Any]:
            load = await closed_loop(
                server.send, mix, clients=clients, warm_up=min(1.0, plan.warm_up), seconds=seconds
            )
            return figures(load)

        over_http = await stack.enter_async_context(HttpClient(atelier.http_port))
        http = AtelierOverHttp(over_http, atelier.process_id)
        loads: dict[str, tuple[Server, Mix, int]] = {}
        for name, server in everyone.items():
            loads[f"{name} single"] = server, single, _SINGLE_CLIENTS
            loads[f"{name} many"] = server, many, _MANY_CLIENTS
        loads["atelier over HTTP single"] = http, single, _SINGLE_CLIENTS
        contenders: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "raw": partial(by_itself, None, everyone.values(), of_raw)
        } | {
            name: partial(by_itself, load[0], everyone.values(), partial(of, *load))
            for name, load in loads.items()
        }
        runs = await take_turns(plan.runs, contenders, lambda words: tell(f"{model}, {words}"))
    return {
        "model": model,
        "sweep": [
            {"batch": how.batch, "threads": how.threads, "sessions": how.sessions, "rows": rate}
            for how, rate in sweep.items()
        ],
        "best": str(best),
        "runs": runs,
        "settings": trials,
    }

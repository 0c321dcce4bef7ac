"""Raw tensors over gRPC: what a server adds to a call, and single rows a second, beside a real Triton's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.contenders import by_itself
from benchmarks.figures import figures
from benchmarks.load import closed_loop
from benchmarks.mixes import Ask, alike
from benchmarks.peers import Server, Setting
from benchmarks.peers.atelier import CALIBRATED_AFTER, serve
from benchmarks.peers.inference import Inference
from benchmarks.peers.triton import TRITON, Drawn
from benchmarks.plan import Plan
from benchmarks.raw import RawLoop
from benchmarks.scenarios import Tell
from benchmarks.summary import percentile, take_turns
from serving.catalog import build, scan

_REQUESTS = 300
_CLIENTS = 16


async def open_inference(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Figures of ModelInfer on the first graph of one pass, by a client of asyncio with one connection."""
    models = build(scan(plan.repository)).models
    model = next((name for name in plan.one_pass if name in models), None)
    if model is None:
        return {}
    graph = models[model].drawn
    assert graph is not None, "a model of one pass has a graph that draws"
    raw = RawLoop(plan.repository, graph)
    mix = alike(Ask(model=model, seed=0, class_id=0), classes=1)

    async with AsyncExitStack() as stack:
        atelier = await stack.enter_async_context(
            serve(plan.repository, "--instances", str(plan.cores), "--threads", "1")
        )
        await asyncio.sleep(CALIBRATED_AFTER)
        drawn = Drawn(Inference(atelier.channel, graph.graph), graph)
        drawn.process_id = atelier.process_id
        servers: dict[str, Server] = {"atelier": drawn}
        if "triton" in plan.peers:
            setting = Setting(workers=plan.cores, batch=_CLIENTS, wait=0.0)
            servers["triton"] = await stack.enter_async_context(TRITON.serve(plan.repository, model, setting))

        async def raw_call() -> dict[str, Any]:
            return {"p50": percentile(await asyncio.to_thread(raw.seconds_per_call, 1, _REQUESTS), 50)}

        async def alone(server: Server) -> dict[str, Any]:
            times = []
            for number in range(_REQUESTS):
                began = perf_counter()
                await server.send(mix(number))
                times.append(perf_counter() - began)
            return {"p50": percentile(times, 50), "p95": percentile(times, 95)}

        async def loaded(server: Server) -> dict[str, Any]:
            load = await closed_loop(
                server.send, mix, clients=_CLIENTS, warm_up=min(1.0, plan.warm_up), seconds=plan.seconds / 2
            )
            return figures(load)

        everyone = servers.values()
        contenders: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "raw": partial(by_itself, None, everyone, raw_call)
        }
        for name, server in servers.items():
            contenders[f"{name} alone"] = partial(by_itself, server, everyone, partial(alone, server))
            contenders[f"{name} loaded"] = partial(by_itself, server, everyone, partial(loaded, server))
        runs = await take_turns(plan.runs, contenders, lambda words: tell(f"{model}, {words}"))
    return {"model": model, "clients": _CLIENTS, "runs": runs}

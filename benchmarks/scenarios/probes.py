"""One-pass and four-step requests that arrive in the middle of a saturated load of fifty steps."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.load import closed_loop, poisson
from benchmarks.mixes import Ask, Mix, alike
from benchmarks.peers.atelier import Atelier, serve
from benchmarks.plan import Plan
from benchmarks.scenarios import Tell
from benchmarks.summary import percentile
from serving.catalog import build, scan

_STEPS, _GUIDANCE = 50, 2.0
_RATE = 4.0


async def probes(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Latencies of the probes with and without the load, and of a call of the U-Net under it, in seconds."""
    models = build(scan(plan.repository)).models
    model = plan.diffusion[0]
    if model not in models:
        return {}
    denoiser = models[model].denoiser
    assert denoiser is not None, "a diffusion model has a denoiser"
    classes = len(denoiser.class_labels)
    template = Ask(model=model, seed=0, class_id=0, steps=_STEPS, guidance_scale=_GUIDANCE)
    background = alike(template, classes=classes)
    kinds: dict[str, Mix] = {"4 steps": alike(Ask(model=model, seed=0, class_id=0, steps=4), classes=classes)}
    for name in plan.one_pass:
        if name in models:
            kinds[name] = alike(Ask(model=name, seed=0, class_id=0), classes=1)
            break
    async with serve(plan.repository, "--instances", str(plan.cores), "--threads", "1") as atelier:
        runs = []
        for run in range(plan.runs):
            tell(f"probes in a load of {_STEPS} steps, run {run + 1} of {plan.runs}")
            runs.append(await _run(plan, atelier, background, kinds, denoiser.graph))
    return {"model": model, "runs": runs}


async def _run(
    plan: Plan, atelier: Atelier, background: Mix, kinds: dict[str, Mix], graph: str
) -> dict[str, Any]:
    alone = {
        name: await closed_loop(atelier.send, mix, clients=1, warm_up=0.2, seconds=min(1.0, plan.seconds))
        for name, mix in kinds.items()
    }
    before = atelier.metrics()
    seconds = plan.warm_up + plan.seconds
    loaded, *probed = await asyncio.gather(
        closed_loop(atelier.send, background, clients=plan.clients, warm_up=0, seconds=seconds),
        *(
            poisson(atelier.send, mix, rate=_RATE, warm_up=plan.warm_up, seconds=plan.seconds)
            for mix in kinds.values()
        ),
    )
    after = atelier.metrics()
    labels = (("graph", graph),)
    calls, took = (
        after[name, labels] - before.get((name, labels), 0.0)
        for name in ("atelier_call_seconds_count", "atelier_call_seconds_sum")
    )
    return {
        "call": took / calls,
        "background_requests": len(loaded.answers),
        "kinds": {
            name: {
                "alone_p50": percentile(alone[name].latencies(), 50),
                "p50": percentile(load.latencies(), 50),
                "p95": percentile(load.latencies(), 95),
                "requests": len(load.latencies()),
            }
            for name, load in zip(kinds, probed, strict=True)
        },
    }

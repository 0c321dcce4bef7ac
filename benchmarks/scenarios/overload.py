"""More than the gateway can do: requests with a deadline, arriving at up to three times the capacity."""

from __future__ import annotations

from typing import Any

from benchmarks.load import Load, closed_loop, poisson
from benchmarks.mixes import Ask, alike, hurried
from benchmarks.peers.atelier import serve
from benchmarks.plan import Plan
from benchmarks.processes import resident_bytes
from benchmarks.scenarios import Tell
from benchmarks.summary import percentile
from serving.catalog import build, scan

_TIMES = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
_STEPS, _GUIDANCE = 10, 2.0
_DEADLINE = 2.0


async def overload(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Capacity, and goodput, refusals, latencies and memory at each rate of arrivals."""
    models = build(scan(plan.repository)).models
    model = plan.diffusion[0]
    if model not in models:
        return {}
    denoiser = models[model].denoiser
    assert denoiser is not None, "a diffusion model has a denoiser"
    template = Ask(model=model, seed=0, class_id=0, steps=_STEPS, guidance_scale=_GUIDANCE)
    mix = alike(template, classes=len(denoiser.class_labels))
    runs = []
    async with serve(plan.repository, "--instances", str(plan.cores), "--threads", "1") as atelier:
        for run in range(plan.runs):
            tell(f"overload, run {run + 1} of {plan.runs}")
            closed = await closed_loop(
                atelier.send, mix, clients=plan.clients, warm_up=plan.warm_up, seconds=plan.seconds
            )
            capacity = closed.credit(lambda ask: 1)
            offered = []
            for times in _TIMES:
                memory = resident_bytes(atelier.process_id)
                load = await poisson(
                    atelier.send,
                    hurried(mix, _DEADLINE),
                    rate=times * capacity,
                    warm_up=max(plan.warm_up, _DEADLINE),
                    seconds=plan.seconds,
                )
                grown = resident_bytes(atelier.process_id) - memory
                offered.append({"times": times, "memory_grown": grown, **_figures(load)})
            runs.append({"capacity": capacity, "offered": offered})
    return {"model": model, "deadline": _DEADLINE, "runs": runs}


def _figures(load: Load) -> dict[str, Any]:
    sent = load.sent()
    refusals = [answer.seconds for answer in sent if answer.outcome == "refused"]
    return {
        "goodput": load.credit(lambda ask: 1),
        "p50": percentile(load.latencies(), 50),
        "p95": percentile(load.latencies(), 95),
        "sent": len(sent),
        **{kind: sum(a.outcome == kind for a in sent) for kind in ("ok", "refused", "late", "failed")},
        "refusal_p50": percentile(refusals, 50),
        "refusal_p99": percentile(refusals, 99),
    }

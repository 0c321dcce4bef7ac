"""The simulator held against the gateway: `python -m benchmarks.simulate` measures, predicts and compares.

What is measured for the prediction: the time of calls by their rows in the gateway, from a few more requests
at a time than there are cores, and what it adds to them, from requests of few and of many steps that come one
at a time. All that happens under load is predicted from that alone, and then measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.figures import figures
from benchmarks.load import Load, Send, closed_loop, poisson
from benchmarks.mixes import Ask, Mix, alike, mixed
from benchmarks.peers.atelier import Atelier, serve
from benchmarks.peers.environments import SOURCE_TREE
from benchmarks.processes import cpu_seconds
from benchmarks.raw import RawLoop
from benchmarks.report import markdown_table
from benchmarks.simulation import Costs, Gateway, simulate
from serving.catalog import build, scan
from serving.manifest import Manifest
from serving.process.processors import processors

_BATCHES = (1, 2, 4, 8, 16)
_FEW, _MANY = 2, 40
_SLICES, _LEAST_CALLS = 5, 10
_WAITING = 2
_KEYS = ("images", "p50", "p95", "short_p50", "short_p95")
_USED = (0.5, 0.7, 0.8, 0.9, 0.95)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A load."""

    name: str
    """What it is called."""
    clients: int = 0
    """Clients of a closed loop."""
    rate: float = 0.0
    """Or requests a second at random."""

    def put(self, send: Send, mix: Mix, seconds: float) -> Coroutine[Any, Any, Load]:
        """Puts it on a server."""
        if self.clients:
            return closed_loop(send, mix, clients=self.clients, warm_up=seconds / 5, seconds=seconds)
        return poisson(send, mix, rate=self.rate, warm_up=seconds / 5, seconds=seconds)


async def measure(repository: Path, model: str, seconds: float, say: Say) -> dict[str, Any]:
    """Costs, and for every trial what was predicted and what was measured."""
    manifest = build(scan(repository)).models[model].denoiser
    assert manifest is not None, "a diffusion model is simulated"
    mix, cores = mixed(model, classes=len(manifest.class_labels)), processors()
    raw = RawLoop(repository, manifest, rewrite=True)
    alone = median(await asyncio.to_thread(raw.seconds_per_call, 1, 60))
    async with serve(repository, "--instances", str(cores), "--threads", "1") as gateway:
        say("calls by their rows, all cores busy")
        calls = await call_seconds(gateway, model, manifest.graph, cores, seconds / 6)
        say("what the gateway adds")
        costs = Costs(
            call_seconds=calls, instances=cores, **await _overheads(gateway, model, alone, seconds / 3)
        )
        trials = await asyncio.to_thread(_trials, manifest, costs, mix)
        rows = []
        for trial in trials:
            predicted = figures(await asyncio.to_thread(predict, manifest, costs, mix, trial, 60.0))
            say(f"{trial.name}: measuring")
            measured = figures(await trial.put(gateway.send, mix, seconds))
            rows.append({"trial": trial.name, "predicted": predicted, "measured": measured})
    return {"model": model, "costs": asdict(costs), "alone": alone, "trials": rows}


def predict(manifest: Manifest, costs: Costs, mix: Mix, trial: Trial, seconds: float) -> Load:
    """What the load comes to on the simulated machine."""

    async def run() -> Load:
        gateway = Gateway(manifest, costs)
        await gateway.start()
        return await trial.put(gateway.send, mix, seconds)

    return simulate(run)


def capacity(manifest: Manifest, costs: Costs, ask: Ask, seconds: float) -> list[dict[str, float]]:
    """Latency of one kind of request by how much of the machine is used."""
    mix = alike(ask, classes=max(1, len(manifest.class_labels)))
    full = figures(predict(manifest, costs, mix, Trial(name="full", clients=16 * costs.instances), seconds))
    rows = []
    for used in _USED:
        trial = Trial(name="", rate=used * full["requests"])
        got = figures(predict(manifest, costs, mix, trial, seconds))
        rows.append(
            {
                "used": used,
                "images": used * full["images"],
                "p50": got["p50"],
                "p95": got["p95"],
                "p99": got["p99"],
            }
        )
    return rows


async def call_seconds(
    gateway: Atelier, model: str, graph: str, cores: int, seconds: float
) -> dict[int, float]:
    """By the rows of a call, as the gateway times them itself, all cores busy.

    There are some clients more than calls at a time, so that rows wait: an idle gateway would spread those of
    a request over its instances. Whatever sizes come of it count.
    """
    means: dict[int, list[float]] = defaultdict(list)
    for images in _BATCHES:
        mix = alike(Ask(model=model, seed=0, class_id=0, count=images, steps=_MANY), classes=1)
        for _ in range(_SLICES):
            before = await _timed(gateway, graph)
            await closed_loop(
                gateway.send, mix, clients=cores + _WAITING, warm_up=0.0, seconds=seconds / _SLICES
            )
            for rows, (calls, took) in (await _timed(gateway, graph)).items():
                calls_before, took_before = before.get(rows, (0, 0.0))
                if calls - calls_before >= _LEAST_CALLS:
                    means[rows].append((took - took_before) / (calls - calls_before))
    return {rows: median(means[rows]) for rows in sorted(means)}


async def _timed(gateway: Atelier, graph: str) -> dict[int, tuple[int, float]]:
    """Calls that there have been, and the seconds of all of them, by their rows."""
    stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(gateway.channel)
    answer = await stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=graph))
    return {
        batch.batch_size: (batch.compute_infer.count, batch.compute_infer.ns / 1e9)
        for batch in answer.model_stats[0].batch_stats
    }


async def _overheads(gateway: Atelier, model: str, alone: float, seconds: float) -> dict[str, float]:
    """What a request takes besides its calls: a line through two numbers of steps, of time and of CPU time.

    The CPU time is that of the gateway and of this client, which has the same cores.
    """
    times, works = {}, {}
    for steps in (_FEW, _MANY):
        mix = alike(Ask(model=model, seed=0, class_id=0, steps=steps), classes=1)
        await closed_loop(gateway.send, mix, clients=1, warm_up=0.2, seconds=0.5)
        before = cpu_seconds(gateway.process_id) + process_time()
        load = await closed_loop(gateway.send, mix, clients=1, warm_up=0.0, seconds=seconds)
        taken = cpu_seconds(gateway.process_id) + process_time() - before
        times[steps], works[steps] = median(load.latencies()), taken / len(load.answers)
    step, work = ((each[_MANY] - each[_FEW]) / (_MANY - _FEW) for each in (times, works))
    step_work = min(max(0.0, work - alone), step - alone)
    request, request_work = times[_FEW] - _FEW * step, works[_FEW] - _FEW * work
    return {
        "step_work": max(0.0, step_work),
        "step_delay": max(0.0, step - alone - step_work),
        "request_work": max(0.0, request_work),
        "request_delay": max(0.0, request - request_work),
    }


def _trials(manifest: Manifest, costs: Costs, mix: Mix) -> list[Trial]:
    full = figures(predict(manifest, costs, mix, Trial(name="", clients=16), 60.0))["requests"]
    return [
        Trial(name="4 clients", clients=4),
        Trial(name="16 clients", clients=16),
        *(Trial(name=f"{share:.0%} of capacity, at random", rate=share * full) for share in (0.5, 0.8)),
    ]


def tables(results: dict[str, Any], rows: Sequence[dict[str, float]]) -> str:
    """The results as Markdown."""
    costs = results["costs"]
    head = ["load", "", "images/s", "p50 s", "p95 s", "short p50 s", "short p95 s"]
    body = []
    for trial in results["trials"]:
        body += [
            [trial["trial"], what, *(f"{trial[what][key]:.3g}" for key in _KEYS)]
            for what in ("predicted", "measured")
        ]
        errors = (trial["predicted"][key] / trial["measured"][key] - 1 for key in _KEYS)
        body.append(["", "error", *(f"{error:+.0%}" for error in errors)])
    calls = ", ".join(f"{seconds * 1e3:.2f} ms for {size}" for size, seconds in costs["call_seconds"].items())
    return "\n\n".join(
        [
            f"{results['model']}: {calls} rows with {costs['instances']} instances busy. A request takes "
            f"{costs['request_work'] * 1e3:.2f} ms of a core besides, and each further one in a call "
            f"{costs['step_work'] * 1e3:.2f} ms for its step; "
            f"{costs['request_delay'] * 1e3:.2f} ms and {costs['step_delay'] * 1e3:.2f} ms pass idle.",
            markdown_table(head, body),
            markdown_table(
                ["used", "images/s", "p50 s", "p95 s", "p99 s"],
                [
                    [f"{row['used']:.0%}", *(f"{row[key]:.3g}" for key in ("images", "p50", "p95", "p99"))]
                    for row in rows
                ],
            ),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__.split("\n")[0])
    parser.add_argument("--repository", type=Path, default=SOURCE_TREE / "model_repository")
    parser.add_argument("--model", default="shapes_unet", help="diffusion model (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="file for the raw figures, as JSON")
    parser.add_argument(
        "--costs", type=Path, help="file of costs to predict with, as in --results: measures nothing"
    )
    parser.add_argument("--steps", type=int, default=20, help="of the requests in the table of capacity")
    given = parser.parse_args(arguments)
    manifest = build(scan(given.repository)).models[given.model].denoiser
    assert manifest is not None, "a diffusion model is simulated"
    if given.costs:
        results = json.loads(given.costs.read_text("utf-8"))
        results["costs"]["call_seconds"] = {int(k): v for k, v in results["costs"]["call_seconds"].items()}
    else:
        results = asyncio.run(
            measure(given.repository, given.model, given.seconds, lambda words: print(words, file=sys.stderr))
        )
        if given.results:
            given.results.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    ask = Ask(model=given.model, seed=0, class_id=0, steps=given.steps)
    print(tables(results, capacity(manifest, Costs(**results["costs"]), ask, 60.0)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

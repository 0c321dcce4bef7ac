"""What many replicas come to: `python -m benchmarks.fleet --costs FILE`, on the simulated clock.

Each replica is the gateway's own engine over a simulated machine (see `simulation`), and what stands before
them sends requests in one of three ways.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.figures import figures
from benchmarks.load import Load, Send, poisson
from benchmarks.mixes import Ask, Mix, mixed
from benchmarks.peers.environments import SOURCE_TREE
from benchmarks.report import markdown_table
from benchmarks.simulate import Trial, predict
from benchmarks.simulation import Costs, Gateway, simulate
from serving.catalog import build, scan
from serving.manifest import Manifest

Spread = Callable[[list[Gateway]], Send]

_TRIALS = 300


def by_turns(gateways: list[Gateway]) -> Send:
    """Each request to the next replica: a proxy that knows requests, or a client that has all addresses."""
    turns = itertools.cycle(gateways)

    async def send(ask: Ask) -> str:
        return await next(turns).send(ask)

    return send


def by_connections(gateways: list[Gateway], connections_each: int = 4) -> Send:
    """Each request on one of the clients' connections, which went to replicas at random and stay there."""
    random = np.random.default_rng(0)
    places = random.integers(len(gateways), size=connections_each * len(gateways)).tolist()
    requests = np.random.default_rng(1)

    async def send(ask: Ask) -> str:
        return await gateways[places[requests.integers(len(places))]].send(ask)

    return send


def by_least(gateways: list[Gateway]) -> Send:
    """Each request to the less busy of two replicas at random (Mitzenmacher, 2001)."""
    under_way = [0] * len(gateways)
    random = np.random.default_rng(0)

    async def send(ask: Ask) -> str:
        one, other = random.integers(len(gateways), size=2)
        place = int(one if under_way[one] <= under_way[other] else other)
        under_way[place] += 1
        try:
            return await gateways[place].send(ask)
        finally:
            under_way[place] -= 1

    return send


SPREADS: dict[str, Spread] = {
    "connections that stay": by_connections,
    "requests in turns": by_turns,
    "the less busy of two": by_least,
}
"""Ways to send, by name."""


def run_fleet(
    manifest: Manifest, costs: Costs, mix: Mix, spread: Spread, *, replicas: int, rate: float, seconds: float
) -> Load:
    """Load of so many requests a second, on all replicas together."""

    async def run() -> Load:
        gateways = [Gateway(manifest, costs) for _ in range(replicas)]
        for gateway in gateways:
            await gateway.start()
        return await poisson(spread(gateways), mix, rate=rate, warm_up=seconds / 4, seconds=seconds)

    return simulate(run)


def fullest(connections: int, replicas: int) -> float:
    """Connections of the fullest replica over the mean, where each chose at random: of many draws."""
    random = np.random.default_rng(0)
    drawn = random.multinomial(connections, np.full(replicas, 1 / replicas), size=_TRIALS)
    return float(drawn.max(axis=1).mean() * replicas / connections)


def shared(under_way: float, replicas: int) -> float:
    """Share of identical requests that join one under way, with so many under way at a time in one gateway.

    Each replica sees a Poisson stream of its part: whoever comes while one is under way joins it.
    """
    load = under_way / replicas
    return load / (1 + load)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.split("\n")[0])
    parser.add_argument("--repository", type=Path, default=SOURCE_TREE / "model_repository")
    parser.add_argument(
        "--costs", type=Path, required=True, help="results of `python -m benchmarks.simulate`"
    )
    parser.add_argument(
        "--used", type=float, default=0.7, help="share of the capacity (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated (default: %(default)s)")
    given = parser.parse_args(arguments)
    results = json.loads(given.costs.read_text("utf-8"))
    model = results["model"]
    manifest = build(scan(given.repository)).models[model].denoiser
    assert manifest is not None, "a diffusion model is simulated"
    known = results["costs"]
    costs = Costs(**known | {"call_seconds": {int(k): v for k, v in known["call_seconds"].items()}})
    mix = mixed(model, classes=len(manifest.class_labels))
    full = figures(predict(manifest, costs, mix, Trial(name="", clients=16), given.seconds))["requests"]
    rows = []
    for replicas in (1, 10, 100):
        for name, spread in SPREADS.items():
            if replicas == 1 and rows:
                break
            load = run_fleet(
                manifest,
                costs,
                mix,
                spread,
                replicas=replicas,
                rate=given.used * full * replicas,
                seconds=given.seconds,
            )
            got = figures(load)
            shown = (f"{got[key]:.3g}" for key in ("images", "short_p50", "short_p95", "p50", "p95"))
            rows.append([str(replicas), name if replicas > 1 else "", *shown])
            print(rows[-1], file=sys.stderr)
    print(
        markdown_table(
            ["replicas", "sent by", "images/s", "short p50 s", "short p95 s", "p50 s", "p95 s"], rows
        )
    )
    sizes = (10, 100, 1000)
    print()
    print(
        markdown_table(
            ["clients for each replica", *(f"{size} replicas" for size in sizes)],
            [
                [str(each), *(f"{fullest(each * size, size):.1f} ×" for size in sizes)]
                for each in (1, 4, 16, 64)
            ],
        )
    )
    print()
    print(
        markdown_table(
            ["identical requests under way", "1 replica", *(f"{size} replicas" for size in sizes)],
            [[str(each), *(f"{shared(each, size):.0%}" for size in (1, *sizes))] for each in (1, 10, 100)],
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

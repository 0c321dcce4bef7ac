"""What Atelier must reach, and whether a set of results does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.summary import LOOPS, middle

Results = Mapping[str, Any]
"""Figures of each scenario by its name, as JSON holds them."""

# Flat: what Python's allocator may keep of a burst, and nothing like the requests that were refused.
_FLAT_BYTES = 16 * 2**20
_SCRAPE_INTERVAL = 15  # seconds
_SINGLE_RATIO = {"mlserver": 2.0, "litserve": 2.0, "bentoml": 2.0, "triton": 0.5}
_HEAVY_RATIO = {"triton": 0.9}
_OVER_HTTP = ("litserve", "bentoml")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One line of the list."""

    what: str
    """What is measured."""
    value: float
    """The median of its runs."""
    bound: float
    """What it is held against."""
    at_least: bool
    """Whether the bound is the least value; else it is the greatest."""
    unit: str
    """Of both."""
    scenario: str
    """Where it was measured."""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def targets(results: Results) -> list[Target]:
    """Every target that the results say something about."""
    judges: Mapping[str, Callable[[Any], Iterator[Target]]] = {
        "saturated": _saturated,
        "one_pass": partial(_one_pass, "one_pass", _SINGLE_RATIO),
        "heavy_pass": partial(_one_pass, "heavy_pass", _HEAVY_RATIO),
        "probes": _probes,
        "overhead": _overhead,
        "overload": _overload,
        "step_loop": _step_loop,
        "triton_backend": _triton_backend,
        "watching": _watching,
    }
    return [target for name, judge in judges.items() if results.get(name) for target in judge(results[name])]


def ratio(one: list[dict[str, Any]], other: list[dict[str, Any]], key: str, other_key: str = "") -> float:
    """The median of the ratios, each within one round of runs."""
    pairs = zip(one, other, strict=True)
    return middle([a[key] / b[other_key or key] for a, b in pairs if b[other_key or key]])


def _saturated(figures: Any) -> Iterator[Target]:
    for model, each in _first(figures):
        runs = each["runs"]
        yield _least(
            f"{model}, saturated and mixed: U-Net rows a second, of raw onnxruntime's best",
            ratio(runs["atelier"], runs["raw"], "rows"),
            0.95,
            "×",
            "saturated",
        )
        for peer in [name for name in runs if name not in ("atelier", *LOOPS)]:
            yield _least(
                f"{model}: images a second, of {peer}'s",
                ratio(runs["atelier"], runs[peer], "images"),
                1.1,
                "×",
                "saturated",
            )
            yield _least(
                f"{model}: p95 of short requests, {peer}'s over Atelier's",
                ratio(runs[peer], runs["atelier"], "short_p95"),
                3.0,
                "×",
                "saturated",
            )


def _one_pass(scenario: str, of_peers: Mapping[str, float], figures: Any) -> Iterator[Target]:
    model, runs = figures["model"], figures["runs"]
    yield _least(
        f"{model}: images a second in requests of 16, of raw onnxruntime's best",
        ratio(runs["atelier many"], runs["raw"], "images", "rows"),
        0.90,
        "×",
        scenario,
    )
    for peer, bound in of_peers.items():
        if f"{peer} single" not in runs:
            continue
        over = "over HTTP" if peer in _OVER_HTTP else "over gRPC"
        ours = runs["atelier over HTTP single" if peer in _OVER_HTTP else "atelier single"]
        yield _least(
            f"{model}: single images a second at 32 clients {over}, of {peer}'s",
            ratio(ours, runs[f"{peer} single"], "images"),
            bound,
            "×",
            scenario,
        )


def _probes(figures: Any) -> Iterator[Target]:
    runs = figures["runs"]
    for kind in runs[0]["kinds"]:
        within = [run["kinds"][kind]["alone_p50"] + 3 * run["call"] for run in runs]
        yield _most(
            f"{kind} in a load of 50 steps: p95, against its own time and three calls",
            1000 * middle([run["kinds"][kind]["p95"] for run in runs]),
            1000 * middle(within),
            "ms",
            "probes",
        )


def _overhead(figures: Any) -> Iterator[Target]:
    yield _most(
        f"{figures['model']}: p50 of an unloaded request over the raw call",
        1000 * middle([run["overhead_p50"] for run in figures["runs"]]),
        1.5,
        "ms",
        "overhead",
    )


def _overload(figures: Any) -> Iterator[Target]:
    runs = figures["runs"]
    worst = [run["offered"][-1] for run in runs]
    times = worst[0]["times"]
    yield _least(
        f"goodput at {times:g} times the capacity, of the capacity",
        middle([last["goodput"] / run["capacity"] for last, run in zip(worst, runs, strict=True)]),
        0.9,
        "×",
        "overload",
    )
    refusals = [last["refusal_p99"] for last in worst if last["refused"]]
    if refusals:
        yield _most(
            f"refusals at {times:g} times the capacity: p99",
            1000 * middle(refusals),
            50.0,
            "ms",
            "overload",
        )
    yield _most(
        f"memory grown at {times:g} times the capacity",
        middle([last["memory_grown"] for last in worst]) / 2**20,
        _FLAT_BYTES / 2**20,
        "MiB",
        "overload",
    )


def _step_loop(figures: Any) -> Iterator[Target]:
    for model, runs in _first(figures):
        yield _most(
            f"{model}: the step loop's own CPU time, of the call's, per row and step",
            100 * middle([run["share"] for run in runs]),
            5.0,
            "%",
            "step_loop",
        )


def _watching(figures: Any) -> Iterator[Target]:
    scrapes = figures["scrapes"]
    for model, runs in figures["models"].items():
        added = ratio(runs["often"], runs["nothing"], "cpu_seconds_a_row") - 1
        yield _most(
            f"{model}: CPU time that counting adds, a part in {figures['often']} of counting so many times",
            100 * added / figures["often"],
            2.0,
            "%",
            "watching",
        )
    yield _most("a scrape under load: p95", 1000 * scrapes["loaded_p95"], 20.0, "ms", "watching")
    of_core = 100 * scrapes["cpu_seconds"] / _SCRAPE_INTERVAL
    yield _most(f"a scrape every {_SCRAPE_INTERVAL} s, of a core", of_core, 1.0, "%", "watching")


def _first(figures: dict[str, Any]) -> list[tuple[str, Any]]:
    """The model that the targets are about; those with a call too small to tell are shown beside it."""
    return list(figures.items())[:1]


def _triton_backend(figures: Any) -> Iterator[Target]:
    for model, each in figures.items():
        yield _least(
            f"{model}, saturated, through the gateway over Triton: rows a second, of the embedded engine's",
            ratio(each["runs"]["over Triton"], each["runs"]["embedded"], "rows"),
            0.9,
            "×",
            "triton_backend",
        )


def _most(what: str, value: float, bound: float, unit: str, scenario: str) -> Target:
    return Target(what=what, value=value, bound=bound, at_least=False, unit=unit, scenario=scenario)


def _least(what: str, value: float, bound: float, unit: str, scenario: str) -> Target:
    return Target(what=what, value=value, bound=bound, at_least=True, unit=unit, scenario=scenario)

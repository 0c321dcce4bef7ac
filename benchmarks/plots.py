"""The figures as pictures: one idea each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.summary import LOOPS, NAMES, middle
from benchmarks.targets import Results

_OURS, _OTHERS, _LIMIT, _INK = "#2f6f8f", "#b9c4c9", "#d08c3c", "#222222"


def draw(results: Results, folder: Path) -> list[Path]:
    """Draws what the results hold, and returns the files."""
    matplotlib.rcParams.update(
        {
            "font.size": 11,
            "axes.titlesize": 13,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.color": _INK,
            "axes.labelcolor": _INK,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for model, each in (results.get("saturated") or {}).items():
        made.append(_save(_throughput(model, each), folder / f"{model}-throughput.png"))
        made.append(_save(_short_latency(model, each), folder / f"{model}-short-latency.png"))
        made.append(_save(_batches(model, each), folder / f"{model}-batches.png"))
        made.append(_save(_sweep(model, each), folder / f"{model}-raw.png"))
    if results.get("one_pass"):
        made.append(_save(_singles(results["one_pass"]), folder / "one-pass.png"))
    if results.get("overload"):
        made.append(_save(_overload(results["overload"]), folder / "overload.png"))
    return made


def _throughput(model: str, figures: Any) -> Figure:
    rates = {name: [run["rows"] for run in runs] for name, runs in figures["runs"].items()}
    return _bars(f"{model}: U-Net rows a second, saturated", rates, "rows/s (median, and every run)")


def _short_latency(model: str, figures: Any) -> Figure:
    runs = {name: each for name, each in figures["runs"].items() if name not in LOOPS}
    latencies = {name: [run["short_p95"] for run in each] for name, each in runs.items()}
    title = f"{model}: 95 in 100 short requests are done in"
    return _bars(title, latencies, "seconds (median, and every run)")


def _singles(figures: Any) -> Figure:
    rates = {
        name.removesuffix(" single"): [run["images"] for run in runs]
        for name, runs in figures["runs"].items()
        if name.endswith(" single")
    }
    return _bars(
        f"{figures['model']}: single images a second, 32 clients", rates, "images/s (median, and every run)"
    )


def _bars(title: str, values: dict[str, list[float]], unit: str) -> Figure:
    figure, axes = _axes(height=1.2 + 0.55 * len(values))
    names = sorted(values, key=lambda name: middle(values[name]))
    colors = [_OURS if name.startswith("atelier") else _LIMIT if name in LOOPS else _OTHERS for name in names]
    heights = [middle(values[name]) for name in names]
    axes.barh([NAMES.get(name, name) for name in names], heights, color=colors, height=0.62)
    most = max(max(each) for each in values.values())
    for place, name in enumerate(names):
        axes.plot(values[name], [place] * len(values[name]), "|", color=_INK, markersize=9, alpha=0.6)
        digits = 0 if heights[place] >= 100 else 2
        axes.text(
            max(values[name]) + 0.02 * most, place, f"{heights[place]:,.{digits}f}", va="center", color=_INK
        )
    axes.set_xlim(0, 1.15 * most)
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.tick_params(axis="y", length=0)
    return figure


def _batches(model: str, figures: Any) -> Figure:
    figure, axes = _axes()
    most = max((float(bound) for bound, count in figures["batch_rows"].items() if count), default=1.0)
    formed = {bound: count for bound, count in figures["batch_rows"].items() if float(bound) <= most}
    total = sum(formed.values()) or 1.0
    low = 0
    labels = []
    for bound in formed:
        high = int(float(bound))
        labels.append(f"{high}" if high <= low + 1 else f"{low + 1} to {high}")
        low = high
    axes.bar(labels, [100 * count / total for count in formed.values()], color=_OURS, width=0.7)
    axes.set_title(f"{model}: rows of a batch under {figures['clients']} clients")
    axes.set_ylabel("% of calls")
    axes.set_xlabel("rows")
    return figure


def _sweep(model: str, figures: Any) -> Figure:
    figure, axes = _axes()
    ways = sorted({(point["sessions"], point["threads"]) for point in figures["sweep"]}, reverse=True)
    for (sessions, threads), color in zip(ways, (_OURS, _LIMIT, _OTHERS), strict=False):
        points = [p for p in figures["sweep"] if (p["sessions"], p["threads"]) == (sessions, threads)]
        label = f"{sessions} session{'s' * (sessions > 1)} of {threads} thread{'s' * (threads > 1)}"
        axes.plot([p["batch"] for p in points], [p["rows"] for p in points], "o-", color=color, label=label)
    batches: Sequence[int] = sorted({point["batch"] for point in figures["sweep"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_ylim(bottom=0)
    axes.set_title(f"{model}: raw onnxruntime by batch size")
    axes.set_xlabel("rows of a call")
    axes.set_ylabel("rows/s")
    axes.legend(frameon=False)
    return figure


def _overload(figures: Any) -> Figure:
    figure, axes = _axes()
    runs = figures["runs"]
    times = [offered["times"] for offered in runs[0]["offered"]]
    shares = [
        middle([run["offered"][place]["goodput"] / run["capacity"] for run in runs])
        for place in range(len(times))
    ]
    axes.plot(times, [min(time, 1.0) for time in times], "--", color=_LIMIT, label="all that can be done")
    axes.plot(times, shares, "o-", color=_OURS, label="done within the deadline")
    axes.set_ylim(0, 1.2)
    axes.set_title("Goodput when more is asked than can be done")
    axes.set_xlabel("requests offered, times the capacity")
    axes.set_ylabel("goodput, of the capacity")
    axes.legend(frameon=False, loc="lower left")
    return figure


def _axes(height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=130, metadata={"Software": None})
    return path

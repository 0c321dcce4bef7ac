"""`python -m monitoring.picture`: docs/dashboard.png, the key panels from a live run.

A gateway on the shipped models has more and more clients and then fewer, a real Prometheus scrapes it, and
the panels' own expressions are drawn. Takes two minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from monitoring.dashboards import DASHBOARDS
from monitoring.files import ROOT
from monitoring.live import Series, Target, gateway, prometheus
from monitoring.panels import Panel
from serving.client import AtelierError
from serving.client.async_client import AsyncClient

SHOWN: Mapping[str, Sequence[str]] = {
    "atelier-overview": (
        "Requests by model",
        "Latency",
        "Instances in use",
        "Rows that wait",
    ),
    "atelier-engine": (
        "Rows in a batch",
        "Requests that share a batch",
        "Time of a call",
        "Share of the machine",
        "Rows computed in vain",
    ),
}
"""The key panels, by dashboard."""

_CLIENTS = (2, 8, 24, 8, 2)
_SECONDS_EACH = 20.0
_COLUMNS = 3
_BACKGROUND, _PANEL, _GRID, _INK, _FAINT = "#111217", "#181b1f", "#2c3036", "#d8d9da", "#9a9ca1"
_COLORS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#c0d8ff")
_ASKED: tuple[dict[str, Any], ...] = (
    {"model": "shapes_unet", "steps": 16, "class_id": 3},
    {"model": "digits_unet", "steps": 9, "class_id": 7},
    {"model": "digits_gan", "class_id": 1, "count": 4},
    {"model": "digits_vae", "class_id": 2, "count": 4},
)


def panels() -> list[Panel]:
    """The panels that are shown."""
    return [
        panel
        for dashboard in DASHBOARDS
        for title in SHOWN.get(dashboard.uid, ())
        for row in dashboard.rows.values()
        for panel in row
        if panel.title == title
    ]


async def live(repository: Path) -> list[list[Series]]:
    """What the queries of each panel gave over the run."""
    async with (
        gateway(repository) as served,
        prometheus([Target(job="atelier", address=served.metrics)]) as server,
    ):
        for clients in _CLIENTS:
            until = asyncio.get_running_loop().time() + _SECONDS_EACH
            await asyncio.gather(*(_client(served.grpc, number, until) for number in range(clients)))
        return [
            [_named(series, query.legend) for query in panel.queries for series in server.range(query.expr)]
            for panel in panels()
        ]


async def _client(address: str, number: int, until: float) -> None:
    """Asks one thing after the other; every sixth client has little patience."""
    loop = asyncio.get_running_loop()
    async with AsyncClient(address) as client:
        for turn in count():
            left = until - loop.time()
            if left < 0:
                return
            patience = 0.3 if number % 6 == 5 else 30.0
            try:
                async with asyncio.timeout(patience):
                    await client.generate(**_ASKED[(number + turn) % len(_ASKED)], seed=1000 * number + turn)
            except (AtelierError, TimeoutError):
                pass


def _named(series: Series, legend: str) -> Series:
    name = legend or "value"
    for label, value in series.labels.items():
        name = name.replace("{{" + label + "}}", value)
    return Series(labels={"": name}, points=series.points)


def draw(drawn: Sequence[tuple[Panel, Sequence[Series]]], path: Path) -> None:
    """The panels as a picture."""
    rows = -(-len(drawn) // _COLUMNS)
    figure, axes = pyplot.subplots(
        rows, _COLUMNS, figsize=(5.0 * _COLUMNS, 2.9 * rows), facecolor=_BACKGROUND, layout="constrained"
    )
    begin = min(at for _, several in drawn for series in several for at, _ in series.points)
    for axis, (panel, several) in zip(axes.flat, drawn, strict=False):
        _draw(axis, panel, [series for series in several if any(value for _, value in series.points)], begin)
    for axis in list(axes.flat)[len(drawn) :]:
        axis.axis("off")
    figure.savefig(path, dpi=110, facecolor=_BACKGROUND)
    pyplot.close(figure)


def _draw(axis: Any, panel: Panel, several: Sequence[Series], begin: float) -> None:
    axis.set_facecolor(_PANEL)
    axis.set_title(panel.title, color=_INK, fontsize=11, loc="left", pad=7)
    names = [series.labels[""].replace("127.0.0.1:", "gateway ") for series in several]
    if panel.kind == "stacked" and several:
        times = sorted({at for series in several for at, _ in series.points})
        values = [[dict(series.points).get(at, 0.0) for at in times] for series in several]
        axis.stackplot([at - begin for at in times], values, labels=names, colors=_COLORS, alpha=0.75, lw=0)
    else:
        for series, name, color in zip(several, names, _COLORS * 4, strict=False):
            x, y = zip(*((at - begin, value) for at, value in series.points), strict=True)
            axis.plot(x, y, color=color, lw=1.6, label=name)
    axis.set_ylim(bottom=0, top=panel.most)
    axis.margins(x=0)
    axis.yaxis.set_major_formatter(FuncFormatter(_UNITS.get(panel.unit, _plain)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f} s"))
    axis.tick_params(colors=_FAINT, labelsize=8, length=0)
    axis.grid(color=_GRID, lw=0.6)
    axis.set_axisbelow(True)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if len(several) > 1:
        axis.legend(
            fontsize=8,
            labelcolor=_INK,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.09),
            ncols=3,
            handlelength=1.2,
            columnspacing=1.2,
            borderpad=0.2,
        )


def _plain(value: float, _: int) -> str:
    return f"{value:g}"


def _seconds(value: float, _: int) -> str:
    return f"{value:g} s" if value >= 1 or value == 0 else f"{1000 * value:g} ms"


_UNITS = {
    "s": _seconds,
    "percentunit": lambda value, _: f"{100 * value:g} %",
    "reqps": lambda value, _: f"{value:g} /s",
    "rowsps": lambda value, _: f"{value:g} /s",
}


if __name__ == "__main__":
    target = ROOT / "docs/dashboard.png"
    draw(list(zip(panels(), asyncio.run(live(ROOT / "model_repository")), strict=True)), target)
    print(f"wrote {target.relative_to(ROOT)}")

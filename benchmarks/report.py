"""The figures as tables: on the terminal, and as Markdown for the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.summary import LOOPS, NAMES, middle
from benchmarks.targets import Results, targets

Rows = list[list[str]]


def tables(results: Results) -> dict[str, tuple[list[str], Rows]]:
    """Heading and rows of every table, by its title."""
    made: dict[str, tuple[list[str], Rows]] = {}
    if results.get("saturated"):
        for model, each in results["saturated"].items():
            made[f"{model}, saturated: {each['clients']} clients, mixed requests"] = (
                ["server", "U-Net rows/s", "images/s", "p50 s", "p95 s", "p50 short s", "p95 short s"],
                _servers(each["runs"]),
            )
            formed = {bound: count for bound, count in each["batch_rows"].items() if count}
            total = sum(formed.values())
            made[f"{model}: rows of the batches that Atelier formed"] = (
                ["up to", "share of calls"],
                [[bound, f"{100 * count / total:.1f} %"] for bound, count in formed.items()],
            )
    for scenario in ("one_pass", "heavy_pass"):
        if each := results.get(scenario):
            made[f"{each['model']}: one pass"] = (
                ["server", "images/s", "p50 ms", "p95 ms"],
                _one_pass(each["runs"]),
            )
    if results.get("open_inference"):
        each = results["open_inference"]
        made[f"{each['model']}: raw tensors by ModelInfer, single rows"] = (
            ["server", "alone, p50 ms", f"{each['clients']} clients, rows/s", "p50 ms", "p95 ms"],
            _open_inference(each["runs"]),
        )
    if results.get("probes"):
        made["Requests that arrive in the middle of a saturated load of 50 steps"] = (
            ["request", "alone, p50 ms", "p50 ms", "p95 ms", "a U-Net call, ms"],
            _probes(results["probes"]["runs"]),
        )
    if results.get("overload"):
        made["Requests with a deadline of 2 s, arriving at random"] = (
            [
                "times the capacity",
                "goodput/s",
                "of capacity",
                "refused",
                "late",
                "refusal p99 ms",
                "p95 s",
                "memory MiB",
            ],
            _overload(results["overload"]["runs"]),
        )
    if results.get("watching"):
        for model, runs in results["watching"]["models"].items():
            made[f"{model}, saturated: what being watched costs"] = (
                ["a gateway that", "rows/s", "of nothing", "CPU ms a row", "of nothing"],
                _watching(runs, results["watching"]["often"]),
            )
        scrapes = results["watching"]["scrapes"]
        made["A scrape"] = (
            ["series", "under load, p50 ms", "p95 ms", "CPU ms", "of a core, every 15 s"],
            [
                [
                    str(scrapes["series"]),
                    f"{1000 * scrapes['loaded_p50']:.1f}",
                    f"{1000 * scrapes['loaded_p95']:.1f}",
                    f"{1000 * scrapes['cpu_seconds']:.1f}",
                    f"{100 * scrapes['cpu_seconds'] / 15:.2f} %",
                ]
            ],
        )
    if results.get("overhead"):
        made["One image with nothing else going on"] = (
            ["", "p50 ms"],
            [
                [name, f"{1000 * middle([run[key] for run in results['overhead']['runs']]):.2f}"]
                for name, key in (
                    ("request over gRPC", "request_p50"),
                    ("request over HTTP", "http_p50"),
                    ("raw call", "call_p50"),
                    ("difference of gRPC", "overhead_p50"),
                )
            ],
        )
    if results.get("step_loop"):
        made["CPU time for each row and step"] = (
            ["model", "step loop µs", "call µs", "share"],
            [
                [
                    model,
                    *(f"{1e6 * middle([run[key] for run in runs]):.0f}" for key in ("own", "call")),
                    f"{100 * middle([run['share'] for run in runs]):.1f} %",
                ]
                for model, runs in results["step_loop"].items()
            ],
        )
    for model, each in results.get("triton_backend", {}).items():
        made[f"{model}, saturated, through the gateway on each engine"] = (
            ["engine", "U-Net rows/s", "images/s", "p50 s", "p95 s", "p50 short s", "p95 short s"],
            _servers(each["runs"]),
        )
    return made


def target_rows(results: Results) -> tuple[list[str], Rows]:
    """The targets as a table."""
    rows = [
        [
            target.what,
            _number(target.value, target.unit),
            f"{'≥' if target.at_least else '≤'} {_number(target.bound, target.unit)}",
            "yes" if target.met else "**no**",
        ]
        for target in targets(results)
    ]
    return ["what", "measured", "target", "reached"], rows


def show(results: Results, console: Console) -> None:
    """Prints every table."""
    for title, (heading, rows) in {**tables(results), "Targets": target_rows(results)}.items():
        console.print(f"[bold]{title}")
        table = Table(box=box.SIMPLE_HEAD)
        for place, name in enumerate(heading):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            table.add_row(*(cell.replace("**", "") for cell in row))
        console.print(table)


def markdown_table(heading: Sequence[str], rows: Rows) -> str:
    """A table as Markdown has it."""
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _servers(runs: Mapping[str, list[dict[str, Any]]]) -> Rows:
    rows = []
    for name, each in runs.items():
        cells = [_middle(each, "rows", ".0f")]
        if name in LOOPS:
            cells += ["", "", "", "", ""]
        else:
            cells += [_middle(each, "images", ".1f")]
            cells += [_middle(each, key, ".2f") for key in ("p50", "p95", "short_p50", "short_p95")]
        rows.append([_shown(name), *cells])
    return rows


def _one_pass(runs: Mapping[str, list[dict[str, Any]]]) -> Rows:
    rows = [["raw onnxruntime", _middle(runs["raw"], "rows", ".0f"), "", ""]]
    for name, each in runs.items():
        if name != "raw":
            server, _, kind = name.rpartition(" ")
            shown = (
                f"{_shown(server)}, {'32 clients of single images' if kind == 'single' else '32 of sixteen'}"
            )
            milliseconds = [f"{1000 * middle([run[key] for run in each]):.1f}" for key in ("p50", "p95")]
            rows.append([shown, _middle(each, "images", ".0f"), *milliseconds])
    return rows


def _open_inference(runs: Mapping[str, list[dict[str, Any]]]) -> Rows:
    def milliseconds(name: str, key: str) -> str:
        return f"{1000 * middle([run[key] for run in runs[name]]):.2f}"

    rows = [["raw onnxruntime", milliseconds("raw", "p50"), "", "", ""]]
    for server in [name.removesuffix(" alone") for name in runs if name.endswith(" alone")]:
        loaded = f"{server} loaded"
        rows.append(
            [
                _shown(server),
                milliseconds(f"{server} alone", "p50"),
                _middle(runs[loaded], "requests", ".0f"),
                *(milliseconds(loaded, key) for key in ("p50", "p95")),
            ]
        )
    return rows


def _probes(runs: list[dict[str, Any]]) -> Rows:
    call = f"{1000 * middle([run['call'] for run in runs]):.1f}"
    return [
        [kind]
        + [
            f"{1000 * middle([run['kinds'][kind][key] for run in runs]):.1f}"
            for key in ("alone_p50", "p50", "p95")
        ]
        + [call]
        for kind in runs[0]["kinds"]
    ]


def _overload(runs: list[dict[str, Any]]) -> Rows:
    rows = []
    for place, first in enumerate(runs[0]["offered"]):
        each = [run["offered"][place] for run in runs]
        share = [one["goodput"] / run["capacity"] for one, run in zip(each, runs, strict=True)]
        refusals = [one["refusal_p99"] for one in each if one["refused"]]
        rows.append(
            [
                f"{first['times']:g}",
                _middle(each, "goodput", ".1f"),
                f"{middle(share):.2f}",
                *(
                    f"{100 * middle([one[key] / one['sent'] for one in each]):.0f} %"
                    for key in ("refused", "late")
                ),
                f"{1000 * middle(refusals):.1f}" if refusals else "",
                _middle(each, "p95", ".2f"),
                f"{middle([one['memory_grown'] for one in each]) / 2**20:+.0f}",
            ]
        )
    return rows


def _watching(runs: Mapping[str, list[dict[str, float]]], often: int) -> Rows:
    """Ratios are taken within a round, and then their median."""
    rows = []
    names = {
        "nothing": "counts nothing",
        "once": "counts everything",
        "often": f"counts everything {often} times over",
        "traced": "counts everything, traces every request",
    }
    for name, each in runs.items():
        cells = [names[name]]
        for key, shown in (("rows", "{:.0f}"), ("cpu_seconds_a_row", "{:.2f}")):
            scale = 1000 if "cpu" in key else 1
            ratios = [one[key] / other[key] for one, other in zip(each, runs["nothing"], strict=True)]
            cells += [
                shown.format(scale * middle([run[key] for run in each])),
                f"{100 * middle(ratios):.1f} %",
            ]
        rows.append(cells)
    return rows


def _middle(runs: list[dict[str, Any]], key: str, style: str) -> str:
    return format(middle([run[key] for run in runs]), style)


def _shown(name: str) -> str:
    return NAMES.get(name, name)


def _number(value: float, unit: str) -> str:
    digits = 2 if unit in ("×", "ms") and abs(value) < 100 else 1
    return f"{value:.{digits}f}{'' if unit == '×' else ' '}{unit}"

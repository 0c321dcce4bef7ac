"""`docs/benchmarks.md` and its plots, out of the raw figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.plots import draw
from benchmarks.report import markdown_table, tables, target_rows

_HEAD = """\
# Benchmarks

`atelier bench` measures the gateway, raw onnxruntime and other servers on the same ONNX files and the
same cores, with the client on the same machine. It needs the source tree: `make install`, then

    atelier bench --quick       # everything small and once, without the others: four minutes
    atelier bench --docs        # everything; writes this page

The raw figures are in [benchmarks.json](benchmarks.json). Every figure is the median of {runs} runs in
which everyone took turns; ratios are taken within a round, and then their median. Machines are shared, and
by the hour more or less of one is there: figures of two parts of this page do not compare, and ratios move
by a tenth from one measurement to the next. The less of a machine there is, the more the gateway's own
Python weighs: while graphs were called as they are published, the saturated mix was at 0.96 of raw
onnxruntime on a host with AVX-512, and at 0.85, 0.88 and 0.89 on the one of this page, which has none; with
graphs rewritten it was at 0.95, 0.95 and 1.00 there, with p95 of short requests of 0.35 to 0.57 s. Goodput
at three times the capacity was at 0.99 on the former host, and at 0.88 and 0.78 on this one. While one is
measured, servers that compute though nobody asks them anything are stopped: LitServe's batcher polls, and
Atelier measures its batches when it has nothing else to do.

- **raw onnxruntime** calls the graph in a loop, at the best of every batch size with one session of all
  threads, a session of one thread for each core, or both: the limit. It calls the published file, as the
  others do. Atelier rewrites graphs as it loads them, so that it can compute more rows than that; what the
  loop makes of the rewritten graph is shown beside it for the mix.
- **The others** serve the same requests in the way that is natural to them: a request's whole sampling
  loop inside their model code, with the samplers and the noise of Atelier (the pictures are equal up to
  rounding), and their own batcher joining whole requests, of which those with equal parameters are sampled
  together. Each stands in an environment of its own, at the better of its settings (two workers, with and
  without batching) in a trial before the runs.
- **The mix** has every combination of 4 to 50 steps, five samplers, guidance of 1, 2 and 4, and one to
  four images, in one shuffled order for all. A request counts in a window with the share of its time
  that lies in it.
- Answers are raw pixels everywhere. MLServer and Triton are asked over gRPC, LitServe and BentoML over
  HTTP, on connections that are opened one by one, so that every worker gets some. Atelier is asked over
  gRPC, and for single images of one pass over HTTP as well, which those two are held against. In that test
  Triton is given the latents and answers with tensors, so it has less to do than the others.
- **wide_gan** is an untrained generator of 64 channels that the benchmark makes for itself: 2 to 3 ms an
  image, so that what a server adds weighs little.
"""


def write(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the page, the raw figures and the plots; returns their paths."""
    import json

    figures = {name: each["figures"] for name, each in results.items()}
    plots = draw(figures, folder / "benchmarks")
    parts = [_HEAD.format(runs=_span(each["runs"] for each in results.values()))]
    parts.append("## Targets\n\n" + markdown_table(*target_rows(figures)))
    for name, each in results.items():
        shown = tables({name: each["figures"]})
        if not shown:
            continue
        parts.append(f"## {name.replace('_', ' ').capitalize()}\n\n    {each['command']}")
        parts.append(f"Measured on {each['measured'][:10]}: {each['machine']}.")
        parts += [f"**{title}**\n\n{markdown_table(*table)}" for title, table in shown.items()]
        parts += [
            f"![{plot.stem}](benchmarks/{plot.name})" for plot in plots if _of(name, plot, each["figures"])
        ]
        parts += _settings(each["figures"])
    page, raw = folder / "benchmarks.md", folder / "benchmarks.json"
    page.write_text("\n\n".join(part.strip("\n") for part in parts) + "\n", "utf-8")
    raw.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return [page, raw, *plots]


def _span(numbers: Iterable[int]) -> str:
    """The least and the greatest of them."""
    ordered = sorted(numbers)
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _of(scenario: str, plot: Path, figures: Any) -> bool:
    if scenario == "saturated":
        return any(plot.name.startswith(f"{model}-") for model in figures)
    return plot.stem == scenario.replace("_", "-")


def _settings(figures: Any) -> list[str]:
    """What the peers and the raw loop were set to."""
    each = figures.values() if "runs" not in figures else [figures]
    lines = []
    for one in each:
        if isinstance(one, dict) and "best" in one:
            lines.append(f"- raw onnxruntime: {one['best']}")
            if "best_rewritten" in one:
                lines.append(f"- raw onnxruntime, graph rewritten: {one['best_rewritten']}")
            lines += [
                f"- {peer}: {trial.get('best', 'did not start')}" for peer, trial in one["settings"].items()
            ]
    return ["Settings:\n\n" + "\n".join(lines)] if lines else []

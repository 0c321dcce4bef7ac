"""`atelier export`: turns a run into ONNX graphs, proves them equal to torch, and publishes them."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from export.accelerate import Batches, acceleration, add_options
from export.contract import manifests
from export.onnx import OPSET, ExportError, OnnxGraph, export_graph
from export.publish import Candidate, PublishError, plan, publish
from export.validate import (
    TOLERANCE,
    max_abs_error,
    open_session,
    parity_cases,
    stability_sizes,
    stable_rows,
)
from serving.manifest import ManifestError, VersionRecord
from training.checkpoint import Checkpoint, CheckpointError, load
from training.family import Graph

MAX_BATCH_SIZE = 64
"""Most rows in one call, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A graph that passed its checks."""

    onnx: OnnxGraph
    """The graph."""
    record: VersionRecord
    """What was found."""
    stable: bool
    """Whether a row's result is the same in any batch of at least `record.min_rows`."""


def main(arguments: list[str]) -> int:
    """Run `atelier export`; 0 when published, 2 for what cannot be exported or published."""
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (CheckpointError, ExportError, ManifestError, PublishError) as error:
        print(f"atelier export: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="atelier export",
        description="Turn a run into ONNX graphs, compare them with torch, and publish them in a model "
        "repository as the next version of a model.",
    )
    add = result.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a run, or of one of its checkpoints")
    add("--to", type=Path, default=Path("model_repository"), metavar="DIR", help="model repository")
    add("--name", metavar="MODEL", help="name of the model (default: the run's, without its number)")
    add("--version", type=int, metavar="N", help="version to publish as (default: the next one)")
    add(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="X",
        help=f"largest absolute difference to torch (default: {TOLERANCE:.0e})",
    )
    add(
        "--max-batch-size",
        type=int,
        default=MAX_BATCH_SIZE,
        metavar="ROWS",
        help=f"most rows in one call (default: {MAX_BATCH_SIZE})",
    )
    add(
        "--allow-unstable-rows",
        action="store_true",
        help="publish a graph whose rows depend on their batch; its pictures then depend on who else asks",
    )
    add("--dry-run", action="store_true", help="do all but publishing")
    add_options(result)
    return result


def run(options: argparse.Namespace) -> None:
    """Export, check and publish, and show what came of it."""
    console = Console(stderr=True)
    if options.tolerance <= 0:
        raise ExportError(f"--tolerance {options.tolerance} is not possible: give a positive difference")
    checkpoint = _load(options.run)
    model = options.name or model_name(checkpoint)
    settings, networks = checkpoint.config.settings, checkpoint.averaged_networks()
    graphs = checkpoint.family.graphs(settings, networks, checkpoint.data)
    contracts = manifests(checkpoint, graphs, model=model, max_batch_size=options.max_batch_size)
    version = plan(options.to, contracts, options.version)
    size = (checkpoint.data.height, checkpoint.data.width)
    with _progress(console) as start:
        exported = [
            export_checked(
                graph,
                size=size,
                max_rows=options.max_batch_size,
                tolerance=options.tolerance,
                allow_unstable_rows=options.allow_unstable_rows,
                warn=lambda text: console.print(f"atelier export: {text}", style="yellow", soft_wrap=True),
                start=start,
            )
            for graph in graphs
        ]
    candidates = [
        Candidate(
            manifest=dataclasses.replace(
                contract,
                acceleration=acceleration(
                    options,
                    one.onnx,
                    Batches(least=one.record.min_rows, most=options.max_batch_size, size=size),
                    one.record.precision,
                ),
            ),
            record=one.record,
            model=one.onnx.model,
        )
        for contract, one in zip(contracts, exported, strict=True)
    ]
    if not options.dry_run:
        version = publish(options.to, candidates, options.version)
    report(console, checkpoint, candidates, exported, version)
    if options.dry_run:
        console.print(f"{model} would be version {version} in {options.to}", highlight=False)
        return
    console.print(f"{model} is version {version} in {options.to}; next:", highlight=False, soft_wrap=True)
    console.print(f"  atelier evaluate {model} --repository {options.to}", highlight=False, soft_wrap=True)
    console.print(f"  atelier serve --repository {options.to}", highlight=False, soft_wrap=True)


def _load(run: Path) -> Checkpoint:
    try:
        return load(run)
    except CheckpointError:
        raise
    except ValueError as error:
        raise ExportError(f"{run}: {error}") from error


def model_name(checkpoint: Checkpoint) -> str:
    """The name of a run's model: that of the run's folder, without the number of a repetition."""
    return re.sub(r"-\d+$", "", checkpoint.path.resolve().parent.parent.name)


def export_checked(
    graph: Graph,
    *,
    size: tuple[int, int],
    max_rows: int,
    tolerance: float,
    allow_unstable_rows: bool,
    warn: Callable[[str], None],
    start: Callable[[str, int], Callable[[], None]],
) -> Exported:
    """One graph exported, compared with torch, and its rows found stable or refused.

    `start(what, parts)` begins a bar and returns what to call after each part.
    """
    done = start(f"{graph.role}: export", 1)
    exported = export_graph(graph, size=size)
    session = open_session(exported.model)
    done()
    error = max_abs_error(
        exported,
        session,
        max_rows=max_rows,
        size=size,
        tolerance=tolerance,
        done=start(f"{graph.role}: against torch", len(parity_cases(graph, max_rows=max_rows, size=size))),
    )
    min_rows = stable_rows(
        graph,
        session,
        max_rows=max_rows,
        size=size,
        done=start(f"{graph.role}: same row, same bytes", len(stability_sizes(max_rows))),
    )
    if min_rows is None:
        unstable = f"graph {graph.role!r}: a row's result depends on the other rows of its batch"
        if not allow_unstable_rows:
            raise ExportError(
                f"{unstable}, so that pictures would depend on who else asks: look for batch statistics "
                "(BatchNorm, minibatch deviation) in its forward, or allow it with --allow-unstable-rows"
            )
        warn(f"{unstable}; published all the same, as asked")
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    record = VersionRecord(
        sha256=exported.sha256,
        max_abs_error=error,
        created=now.isoformat().replace("+00:00", "Z"),
        min_rows=min_rows or 1,
    )
    return Exported(onnx=exported, record=record, stable=min_rows is not None)


def report(
    console: Console,
    checkpoint: Checkpoint,
    candidates: list[Candidate],
    exported: list[Exported],
    version: int,
) -> None:
    """The table of graphs: `error` is the largest to torch, `stable` the rows from which rows are."""
    title = f"{candidates[0].manifest.model} version {version}, from step {checkpoint.step:,}"
    # So narrow that the names of graphs stand in full on 80 columns.
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("graph", no_wrap=True)
    for column in ("opset", "nodes", "bytes", "error"):
        table.add_column(column, justify="right")
    table.add_column("stable")
    table.add_column("sha256", no_wrap=True)
    for candidate, one in zip(candidates, exported, strict=True):
        table.add_row(
            candidate.manifest.graph,
            str(OPSET),
            f"{one.onnx.nodes:,}",
            f"{len(one.onnx.model):,}",
            f"{one.record.max_abs_error:.1e}",
            f"from {one.record.min_rows}" if one.stable else "no",
            one.record.sha256[:12],
        )
    console.print(table)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Bars on a terminal; a function that begins one and returns what to call after each of its parts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def start(what: str, parts: int) -> Callable[[], None]:
            task = progress.add_task(what, total=parts)
            return lambda: progress.advance(task)

        yield start

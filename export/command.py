"""`atelier export`: turns a run into ONNX graphs, proves them equal to torch, and publishes them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from export.accelerate import Batches, acceleration, add_options, profile
from export.checked import Checks, Exported
from export.comparison import LARGEST_LOSS, Comparison, compare, require
from export.evaluate import Trial
from export.onnx import OPSET, ExportError
from export.publish import Candidate, PublishError, plan, publish, update_quality
from export.sampled import export_sampled, plan_sampled
from export.sources import Source, from_repository, from_run
from export.tensorrt import PlanRequest, built, require_tensorrt
from export.validate import TOLERANCE
from export.variant import LARGEST_ERRORS, Reduction, reduced, renamed
from serving.manifest import Manifest, ManifestError
from training.checkpoint import CheckpointError

MAX_BATCH_SIZE = 64
"""Most rows in one call, unless told otherwise."""


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
    add("run", type=Path, nargs="?", metavar="RUN", help="folder of a run, or of one of its checkpoints")
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
    sampling = result.add_argument_group(
        "a whole sampler in one graph", "for clients that talk to Triton alone; a model of its own"
    )
    sampling.add_argument(
        "--sampler",
        metavar="NAME[:STEPS]",
        help="publish the diffusion model with this sampler as one graph, in place of its steps: ddim:20",
    )
    sampling.add_argument(
        "--guidance-scale", type=float, metavar="X", help="its scale of guidance (default: the model's)"
    )
    sampling.add_argument(
        "--from-model",
        metavar="MODEL[:VERSION]",
        help="take the graphs of a model in the repository rather than those of a run",
    )
    lower = result.add_argument_group("lower precision", "a model of its own, such as digits_unet_int8")
    lower.add_argument(
        "--precision", choices=("float16", "bfloat16", "int8"), help="publish the graphs in this precision"
    )
    lower.add_argument(
        "--max-error",
        type=float,
        metavar="X",
        help="largest error: root mean square, as a share of the output's (default: "
        + ", ".join(f"{bound:g} for {name}" for name, bound in LARGEST_ERRORS.items())
        + ")",
    )
    lower.add_argument(
        "--max-quality-loss",
        type=float,
        default=LARGEST_LOSS,
        metavar="Y",
        help="most that the Fréchet distance may rise, and accuracy and coverage fall, against float32 "
        f"(default: {LARGEST_LOSS:g})",
    )
    lower.add_argument(
        "--quality-samples",
        type=int,
        default=2000,
        metavar="N",
        help="images to draw for that from either model; 0 measures nothing (default: 2,000)",
    )
    add_options(result)
    return result


def run(options: argparse.Namespace) -> None:
    """Export, check and publish, and show what came of it."""
    console = Console(stderr=True)
    source = _source(options)
    sampled = None
    manifests = source.manifests
    if options.sampler:
        sampled = plan_sampled(
            source.manifests,
            options.sampler,
            guidance_scale=options.guidance_scale,
            name=options.name,
            max_rows=options.max_batch_size,
        )
        manifests = [sampled.manifest]
    if options.precision:
        original = manifests[0].model
        manifests = renamed(manifests, options.name or f"{original}_{options.precision}", options.precision)
    version = plan(options.to, manifests, options.version)
    with _progress(console) as start:
        checks = Checks(
            max_rows=options.max_batch_size,
            tolerance=options.tolerance,
            allow_unstable_rows=options.allow_unstable_rows,
            warn=lambda text: console.print(f"atelier export: {text}", style="yellow", soft_wrap=True),
            start=start,
        )
        exported = source.graphs(checks)
        if sampled:
            graphs = {
                manifest.graph: one.model for manifest, one in zip(source.manifests, exported, strict=True)
            }
            exported = [export_sampled(sampled, graphs, checks)]
        float32 = exported
        if options.precision:
            exported = reduced(source.manifests, float32, _reduction(options), checks)
        candidates = [
            _candidate(manifest, one, source, options, checks)
            for manifest, one in zip(manifests, exported, strict=True)
        ]
    comparison = None
    if options.precision and options.quality_samples:
        comparison = _compared(source.manifests, float32, candidates, options, console)
        candidates = [
            dataclasses.replace(one, record=dataclasses.replace(one.record, quality_change=comparison.change))
            for one in candidates
        ]
    if not options.dry_run:
        version = publish(options.to, candidates, options.version)
        if comparison:
            measured, model = comparison.measured, manifests[0].model
            quality = measured.evaluation.quality
            update_quality(options.to, model, version, quality, measured.card(model), measured.grid)
    model = manifests[0].model
    report(console, f"{model} version {version}, from {source.origin}", candidates, exported)
    if options.dry_run:
        console.print(f"{model} would be version {version} in {options.to}", highlight=False)
        return
    console.print(f"{model} is version {version} in {options.to}; next:", highlight=False, soft_wrap=True)
    console.print(f"  atelier evaluate {model} --repository {options.to}", highlight=False, soft_wrap=True)
    console.print(f"  atelier serve --repository {options.to}", highlight=False, soft_wrap=True)


def _candidate(
    manifest: Manifest, one: Exported, source: Source, options: argparse.Namespace, checks: Checks
) -> Candidate:
    """A graph to publish, with what the options want for GPUs."""
    if one.onnx is None:
        return Candidate(manifest=manifest, record=one.record, model=one.model)
    batches = Batches(least=one.record.min_rows, most=options.max_batch_size, size=source.size)
    found = acceleration(options, one.onnx, batches, one.record.precision)
    manifest = dataclasses.replace(manifest, acceleration=found)
    if not options.plan:
        return Candidate(manifest=manifest, record=one.record, model=one.model)
    done = checks.start(f"{manifest.role}: TensorRT plan", 1)
    request = PlanRequest(
        profile=found.profile if found else profile(options, one.onnx, batches),
        workspace_bytes=options.workspace_bytes or PlanRequest.workspace_bytes,
        timing_cache=options.timing_cache,
    )
    plan, plan_record = built(manifest, one, request, source.size)
    done()
    record = dataclasses.replace(one.record, plan=plan_record)
    return Candidate(manifest=manifest, record=record, model=one.model, plan=plan)


def _reduction(options: argparse.Namespace) -> Reduction:
    largest = LARGEST_ERRORS[options.precision] if options.max_error is None else options.max_error
    return Reduction(
        precision=options.precision,
        activations="int8" if options.accelerate == "tensorrt" or options.plan else "uint8",
        largest_error=largest,
    )


def _compared(
    manifests: Sequence[Manifest],
    float32: Sequence[Exported],
    candidates: Sequence[Candidate],
    options: argparse.Namespace,
    console: Console,
) -> Comparison:
    """The candidates beside the float32 graphs; raises `ExportError` where too much quality is lost."""
    originals = [
        Candidate(manifest=manifest, record=one.record, model=one.model)
        for manifest, one in zip(manifests, float32, strict=True)
    ]
    comparison = compare(originals, candidates, Trial(samples=options.quality_samples), console)
    require(comparison, candidates[0].manifest.model, options.max_quality_loss)
    return comparison


def _source(options: argparse.Namespace) -> Source:
    """Where the graphs come from; raises `ExportError` for options that do not go together."""
    if options.tolerance <= 0:
        raise ExportError(f"--tolerance {options.tolerance} is not possible: give a positive difference")
    if (options.run is None) == (options.from_model is None):
        raise ExportError("give the folder of a run, or with --sampler a model by --from-model, and not both")
    if options.sampler is None and (options.from_model or options.guidance_scale is not None):
        raise ExportError("--from-model and --guidance-scale are for --sampler: give one, such as ddim:20")
    if options.sampler and (options.accelerate or options.plan):
        raise ExportError(
            "--accelerate and --plan are for graphs that are called step by step: leave them out, and Triton "
            "runs a whole sampler by CUDA wherever it has a GPU"
        )
    if options.plan:
        require_tensorrt()
    if options.precision and options.sampler:
        raise ExportError("--precision is for graphs that are called step by step: leave --sampler out")
    if options.max_error is not None and not options.precision:
        raise ExportError("--max-error says nothing without --precision: add --precision int8 or float16")
    if options.from_model:
        return from_repository(options.to, options.from_model)
    # The name is that of what is published: a sampler or a variant is another model than that of the run.
    name = None if options.sampler or options.precision else options.name
    return from_run(options.run, name=name, max_batch_size=options.max_batch_size)


def report(
    console: Console, title: str, candidates: Sequence[Candidate], exported: Sequence[Exported]
) -> None:
    """The table of graphs: `error` is the largest difference, `stable` the rows from which rows are."""
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
            f"{one.nodes:,}",
            f"{len(one.model):,}",
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

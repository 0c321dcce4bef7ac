"""Graphs that have passed their checks, and what was found."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from export.onnx import ExportError, OnnxGraph, export_graph
from export.validate import max_abs_error, open_session, parity_cases, stability_sizes, stable_rows
from serving.manifest import VersionRecord
from training.family import Graph


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What a graph must pass, and who is told of it."""

    max_rows: int
    """Most rows in one call."""
    tolerance: float
    """Largest absolute difference to what the graph must equal."""
    allow_unstable_rows: bool
    """Whether a row may depend on the others of its batch."""
    warn: Callable[[str], None]
    """Tells of what is allowed and should not be."""
    start: Callable[[str, int], Callable[[], None]]
    """`start(what, parts)` begins a bar and returns what to call after each part."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A graph that passed its checks."""

    model: bytes
    """The ONNX file."""
    nodes: int
    """Number of its nodes."""
    record: VersionRecord
    """What was found."""
    stable: bool = True
    """Whether a row's result is the same in any batch of at least `record.min_rows`."""
    onnx: OnnxGraph | None = None
    """What a family declared, where the graph comes from one."""


def export_checked(graph: Graph, *, size: tuple[int, int], checks: Checks) -> Exported:
    """One graph exported, compared with torch, and its rows found stable or refused."""
    done = checks.start(f"{graph.role}: export", 1)
    exported = export_graph(graph, size=size)
    session = open_session(exported.model)
    done()
    max_rows = checks.max_rows
    error = max_abs_error(
        exported,
        session,
        max_rows=max_rows,
        size=size,
        tolerance=checks.tolerance,
        done=checks.start(
            f"{graph.role}: against torch", len(parity_cases(graph, max_rows=max_rows, size=size))
        ),
    )
    min_rows = stable_rows(
        graph,
        session,
        max_rows=max_rows,
        size=size,
        done=checks.start(f"{graph.role}: same row, same bytes", len(stability_sizes(max_rows))),
    )
    allow_unstable(graph.role, min_rows, checks)
    return Exported(
        model=exported.model,
        nodes=exported.nodes,
        record=record(exported.sha256, error, min_rows),
        stable=min_rows is not None,
        onnx=exported,
    )


def allow_unstable(role: str, min_rows: int | None, checks: Checks) -> None:
    """Refuses a graph whose rows depend on their batch, or warns of it where that is allowed."""
    if min_rows is not None:
        return
    unstable = f"graph {role!r}: a row's result depends on the other rows of its batch"
    if not checks.allow_unstable_rows:
        raise ExportError(
            f"{unstable}, so that pictures would depend on who else asks: look for batch statistics "
            "(BatchNorm, minibatch deviation) in its forward, or allow it with --allow-unstable-rows"
        )
    checks.warn(f"{unstable}; published all the same, as asked")


def record(sha256: str, error: float, min_rows: int | None) -> VersionRecord:
    """The record of a version that is made now."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return VersionRecord(
        sha256=sha256,
        max_abs_error=error,
        created=now.isoformat().replace("+00:00", "Z"),
        min_rows=min_rows or 1,
    )

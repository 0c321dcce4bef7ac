"""Where the graphs of a model come from: a run, or a repository where they were published."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.checked import Checks, Exported, export_checked
from export.contract import manifests
from export.onnx import ExportError
from export.publish import MODEL, published
from serving.errors import one_of
from serving.manifest import Manifest
from training.checkpoint import Checkpoint, CheckpointError, load


@dataclass(frozen=True, kw_only=True)
class Source:
    """The graphs of one model."""

    origin: str
    """Where they come from, in words."""
    manifests: Sequence[Manifest]
    """What they are."""
    size: tuple[int, int]
    """Height and width that the model was trained at; 0 where that is not known."""
    graphs: Callable[[Checks], Sequence[Exported]]
    """Makes or reads them, in the order of `manifests`."""


def from_run(run: Path, *, name: str | None, max_batch_size: int) -> Source:
    """The graphs of a run, which are exported and checked when they are asked for.

    Raises `CheckpointError` or `ExportError` for what is not a run.
    """
    checkpoint = _load(run)
    family, data = checkpoint.family, checkpoint.data
    graphs = family.graphs(checkpoint.config.settings, checkpoint.averaged_networks(), data)
    contracts = manifests(
        checkpoint, graphs, model=name or model_name(checkpoint), max_batch_size=max_batch_size
    )
    size = (data.height, data.width)
    return Source(
        origin=f"step {checkpoint.step:,}",
        manifests=contracts,
        size=size,
        graphs=lambda checks: [export_checked(graph, size=size, checks=checks) for graph in graphs],
    )


def from_repository(repository: Path, named: str) -> Source:
    """The graphs of a published model, `MODEL` or `MODEL:VERSION`, as they are.

    Raises `ExportError` where there is no such model or version, or where a file is not the one published.
    """
    model, _, asked = named.partition(":")
    every = published(repository)
    found = [manifest for manifest in every.values() if manifest.model == model]
    if not found:
        models = {manifest.model: None for manifest in every.values()}
        there = f"there are {one_of(models, model)}" if models else "no model was published there"
        raise ExportError(f"there is no model {model!r} in {repository}: {there}")
    versions = set.intersection(*(set(manifest.versions) for manifest in found))
    if not versions:
        raise ExportError(f"{model} in {repository} has no version with all of its graphs: export it again")
    if asked and asked not in map(str, versions):
        raise ExportError(
            f"{model} in {repository} has no version {asked}: it has {one_of(map(str, sorted(versions)))}"
        )
    version = int(asked) if asked else max(versions)
    return Source(
        origin=f"{model} version {version}",
        manifests=found,
        size=(0, 0),
        graphs=lambda checks: [_read(repository, manifest, version) for manifest in found],
    )


def model_name(checkpoint: Checkpoint) -> str:
    """The name of a run's model: that of the run's folder, without the number of a repetition."""
    return re.sub(r"-\d+$", "", checkpoint.path.resolve().parent.parent.name)


def _load(run: Path) -> Checkpoint:
    try:
        return load(run)
    except CheckpointError:
        raise
    except ValueError as error:
        raise ExportError(f"{run}: {error}") from error


def _read(repository: Path, manifest: Manifest, version: int) -> Exported:
    path = repository / manifest.graph / str(version) / MODEL
    record = manifest.versions[version]
    try:
        model = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}; export the model again") from error
    if hashlib.sha256(model).hexdigest() != record.sha256:
        raise ExportError(f"{path} is not the file that was published: export the model again")
    return Exported(model=model, nodes=len(onnx.load_from_string(model).graph.node), record=record)

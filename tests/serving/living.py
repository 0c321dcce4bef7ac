"""Models that can be published again and again, each version with an answer of its own.

Those of one pass draw a grey that says which version drew it; diffusions have a mean for each version, so
that a run which changed its version half-way would end in another picture.
"""

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
import tiny_graphs
from onnx import helper

from serving.manifest import Manifest, TensorSpec, VersionRecord, parse, render
from serving.manifest.probe import Probe

SIDE = 4


def model_of(value: float) -> bytes:
    """A generator whose every pixel is `value`, whatever the latent."""
    return tiny_graphs.graph(
        _INPUTS,
        _OUTPUTS,
        [
            helper.make_node("Mul", ["latent", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "value"], ["row"]),
            helper.make_node("Reshape", ["row", "shape"], ["sample"]),
        ],
        {
            "zero": np.zeros((1, 1), np.float32),
            "value": np.full((1, SIDE * SIDE), value, np.float32),
            "shape": np.array([-1, 1, SIDE, SIDE]),
        },
    )


_INPUTS = (TensorSpec(name="latent", shape=(SIDE * SIDE,)),)
_OUTPUTS = (TensorSpec(name="sample", shape=(1, SIDE, SIDE)),)


def grey(version: int) -> float:
    """What the pixels of a version are."""
    return (version % 100) / 50 - 1


def manifest(name: str, **changes: object) -> Manifest:
    """The manifest of the model, without versions."""
    fields = {
        "graph": name,
        "model": name,
        "role": "generator",
        "family": "gan",
        "tasks": ("generate",),
        "roles": ("generator",),
        "inputs": _INPUTS,
        "outputs": _OUTPUTS,
        "max_batch_size": 8,
    }
    return Manifest(**{**fields, **changes})


def record(model: bytes, probe: Probe | None = None) -> VersionRecord:
    """What is published of a file."""
    return VersionRecord(sha256=hashlib.sha256(model).hexdigest(), max_abs_error=0.0, probe=probe)


def diffusion(name: str, **changes: object) -> Manifest:
    """The manifest of a diffusion, without versions."""
    x, level, prediction = tiny_graphs.gaussian_tensors(1, SIDE)
    fields = {
        "role": "denoiser",
        "roles": ("denoiser",),
        "family": "diffusion",
        "inputs": (x, level),
        "outputs": (prediction,),
        "sampling": tiny_graphs.SAMPLING,
    }
    return manifest(name, **{**fields, **changes})


def publish(repository: Path, name: str, version: int, *, keep: int = 100, **changes: object) -> None:
    """Publishes a version as `atelier export` does: the file, then the configuration in one rename.

    Of the versions before, the newest `keep` - 1 stay.
    """
    _publish(repository, manifest(name, **changes), version, model_of(grey(version)), keep)


def publish_diffusion(
    repository: Path, name: str, version: int, *, keep: int = 100, **changes: object
) -> None:
    """The same for a diffusion."""
    model = tiny_graphs.gaussian(1, SIDE, classes=False, mean=grey(version) / 2)
    _publish(repository, diffusion(name, **changes), version, model, keep)


def _publish(repository: Path, described: Manifest, version: int, model: bytes, keep: int) -> None:
    name = described.graph
    write_model(repository, name, version, model)
    records = published(repository, name).versions if (repository / name / "config.pbtxt").exists() else {}
    records = {**records, version: record(model)}
    records = {v: records[v] for v in sorted(records)[-keep:]}
    configure(repository, dataclasses.replace(described, versions=records))
    for folder in (repository / name).iterdir():
        if folder.is_dir() and int(folder.name) not in records:
            (folder / "model.onnx").unlink()
            folder.rmdir()


def published(repository: Path, name: str) -> Manifest:
    """What the configuration says now."""
    return parse((repository / name / "config.pbtxt").read_text("utf-8"), name)


def write_model(repository: Path, name: str, version: int, model: bytes) -> Path:
    """Writes a version's file."""
    path = repository / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)
    return path


def configure(repository: Path, described: Manifest) -> None:
    """Replaces the configuration in one rename."""
    folder = repository / described.graph
    beside = folder / ".config.pbtxt"
    beside.write_text(render(described), "utf-8")
    os.replace(beside, folder / "config.pbtxt")


def change(repository: Path, name: str, **changes: object) -> None:
    """Publishes the same versions under a changed manifest."""
    configure(repository, dataclasses.replace(published(repository, name), **changes))

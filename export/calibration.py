"""Inputs that graphs really meet: along sampling trajectories, from the prior, and from training images.

Samples are drawn through the samplers and programs that serve the model, every call that they make being
computed by the graphs at hand and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.calls import Array, Call, Program
from serving.manifest import Manifest
from serving.noise import classes
from serving.programs.generate import diffusion, one_pass
from serving.samplers import sampler, split
from serving.samplers.schedules import sigmas
from training.data import Splits
from training.data.pairs import PairData
from training.layers import Enlarge

Inputs = dict[str, NDArray[Any]]

IMAGES = 64
"""Images drawn, or training images taken, for a set of inputs."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A graph of the model whose inputs are wanted."""

    manifest: Manifest
    """What it is."""
    session: onnxruntime.InferenceSession
    """It, in float32."""


def real_inputs(
    parts: Sequence[Part], data: Splits | None, *, seed: int, images: int = IMAGES
) -> dict[str, Inputs]:
    """Rows that each graph of a model is called with, by role, in random order.

    A denoiser has a row for every image and step. `data` is needed by graphs that take images alone; where it
    is None their inputs are left out.
    """
    by_graph = {part.manifest.graph: part for part in parts}
    kept: dict[str, list[Mapping[str, NDArray[Any]]]] = {graph: [] for graph in by_graph}
    for part in parts:
        program = _drawing(part.manifest, [p.manifest for p in parts], seed=seed, images=images)
        if program is not None:
            _run(program, by_graph, kept)
    rng = np.random.default_rng(seed)
    found = {}
    for part in parts:
        calls = kept[part.manifest.graph]
        if not calls and data is not None and part.manifest.input("image") is not None:
            calls = [_images(part.manifest, data, images, rng)]
        if calls:
            rows = {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}
            order = rng.permutation(len(next(iter(rows.values()))))
            found[part.manifest.role] = {name: values[order] for name, values in rows.items()}
    return found


def _drawing(
    manifest: Manifest, manifests: Sequence[Manifest], *, seed: int, images: int
) -> Program[Array] | None:
    """The program that draws from the model through this graph first of all; None for other graphs."""
    roles = {each.role: each for each in manifests}
    labels = len(manifest.class_labels)
    class_id = classes(seed, images, labels) if manifest.input("class_id") is not None else None
    if manifest.role == "denoiser":
        sampling = manifest.sampling
        assert sampling is not None, "a denoiser's manifest says how it is sampled"
        return diffusion(
            manifest,
            roles.get("decoder"),
            sampler=sampler(sampling.sampler, sampling.schedule.kind),
            sigmas=sigmas(sampling.schedule, sampling.steps, split(sampling.sampler)[1]),
            seed=seed,
            count=images,
            class_id=class_id,
            guidance_scale=sampling.guidance_scale,
        )
    if manifest.role in ("generator", "decoder") and "denoiser" not in roles:
        return one_pass(manifest, seed=seed, count=images, class_id=class_id)
    return None


def _run(
    program: Program[Array],
    parts: Mapping[str, Part],
    kept: Mapping[str, list[Mapping[str, NDArray[Any]]]],
) -> None:
    """Run a program to its end, and keep the inputs of every call."""
    reply: Mapping[str, NDArray[Any]] | None = None
    try:
        while True:
            wanted = program.send(reply)
            reply = None
            if isinstance(wanted, Call):
                part = parts[wanted.graph]
                inputs = {name: np.asarray(values) for name, values in wanted.inputs.items()}
                inputs |= {
                    name: values.astype(np.float32)
                    for name, values in inputs.items()
                    if values.dtype == np.float64
                }
                kept[wanted.graph].append(inputs)
                names = [spec.name for spec in part.manifest.outputs]
                reply = dict(zip(names, part.session.run(names, inputs), strict=True))
    except StopIteration:
        return


def _images(manifest: Manifest, data: Splits, count: int, rng: np.random.Generator) -> Inputs:
    """Training images that a graph takes, with their classes where it asks for these."""
    train = data.train
    if isinstance(train, PairData):
        train = train.second if manifest.role == "b_to_a" else train.first
    indices = np.sort(rng.choice(len(train), min(count, len(train)), replace=False))
    batch = train.batch(indices, rng)
    # Graphs take images at the size that they are served at.
    inputs: Inputs = {"image": Enlarge(train.spec.enlarge)(batch.images).numpy().astype(np.float32)}
    if manifest.input("class_id") is not None:
        assert batch.labels is not None, "a conditional graph is trained on labelled data"
        inputs["class_id"] = batch.labels.numpy()[:, None]
    return inputs

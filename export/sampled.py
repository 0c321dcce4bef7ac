"""A diffusion model and one of its samplers as one graph, for clients that talk to Triton alone.

The graph is a model of its own with the role `generator`: `latent`, which is the noise that sampling starts
from, and `class_id` go in, and `sample` comes out. Where a generator draws its latent from the noise of a
seed, it is the noise that the diffusion would have started from: so the gateway, too, serves it with the
pictures of the model that it was made from. Before it is published it is compared with the gateway's own
program for the same sampler, which calls the same denoiser step by step.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from export.checked import Checks, Exported, allow_unstable, record
from export.loop import Part, sampler_model, tensors
from export.onnx import ExportError
from export.recurrence import Recurrence, StochasticSamplerError, recurrence
from export.validate import open_session, stable_among
from serving.calls import Array, Call, Program, Tensors
from serving.manifest import Manifest, Sampling
from serving.noise import Stream, classes, normal
from serving.programs.generate import diffusion
from serving.samplers import offered, sampler, split
from serving.samplers.denoiser import start_scale
from serving.samplers.schedules import sigmas

PARITY_ROWS = (1, 3, 8)
"""Rows at which the graph is compared with the gateway's program."""

STABLE_ROWS = (1, 2, 3, 8, 13)
"""Sizes of the batches in which a row must come out the same; the denoiser has been through more."""

_GREATEST_GUIDANCE = 100.0


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A sampler in one graph, all decided and nothing built."""

    manifest: Manifest
    """The model that it becomes."""
    denoiser: Manifest
    """The graph that it calls."""
    decoder: Manifest | None
    """The graph at the end, where the model has one."""
    sampler: str
    """Name of the sampler, with a spacing at the end where one was asked for."""
    levels: list[float]
    """Noise levels, falling to 0."""
    recurrence: Recurrence
    """The sampler on these levels."""
    guidance_scale: float
    """Scale of classifier-free guidance; 1 is none."""


def plan_sampled(
    manifests: Sequence[Manifest],
    asked: str,
    *,
    guidance_scale: float | None,
    name: str | None,
    max_rows: int,
) -> Sampled:
    """What `--sampler NAME[:STEPS]` makes of a model; its own steps and guidance where none are given.

    Raises `ExportError` for a model that is not sampled step by step, and for a sampler, number of steps or
    guidance scale that it cannot have.
    """
    roles = {manifest.role: manifest for manifest in manifests}
    denoiser, decoder = roles.get("denoiser"), roles.get("decoder")
    if denoiser is None or denoiser.sampling is None:
        raise ExportError(f"{manifests[0].model} draws in one pass and has no sampler: leave out --sampler")
    sampling = denoiser.sampling
    chosen, steps = _parse(asked, denoiser.model, sampling)
    guidance = sampling.guidance_scale if guidance_scale is None else guidance_scale
    if not 0 <= guidance <= _GREATEST_GUIDANCE:
        raise ExportError(f"--guidance-scale {guidance:g} is out of range: 0 to {_GREATEST_GUIDANCE:g}")
    if guidance != 1 and denoiser.input("class_id") is None:
        raise ExportError(f"{denoiser.model} is unconditional: leave out --guidance-scale")
    levels = sigmas(sampling.schedule, steps, split(chosen)[1])
    try:
        found = recurrence(sampler(chosen, sampling.schedule.kind), levels, start_scale(denoiser, levels[0]))
    except StochasticSamplerError as error:
        raise ExportError(
            f"sampler {chosen!r} draws noise at every step, which a graph has none of: take one that draws "
            "none, such as ddim, dpmpp_2m, heun or unipc"
        ) from error
    inputs, outputs = tensors(denoiser, decoder)
    model = name or f"{denoiser.model}_{chosen}{'_' if chosen[-1].isdigit() else ''}{steps}"
    manifest = dataclasses.replace(
        denoiser,
        graph=model,
        model=model,
        role="generator",
        roles=("generator",),
        tasks=("generate",),
        inputs=inputs,
        outputs=outputs,
        max_batch_size=max_rows,
        sampling=None,
        acceleration=None,
        metadata={
            **denoiser.metadata,
            "sampled_from": denoiser.model,
            "sampler": chosen,
            "sampler_steps": str(steps),
            "guidance_scale": f"{guidance:g}",
        },
        versions={},
    )
    return Sampled(
        manifest=manifest,
        denoiser=denoiser,
        decoder=decoder,
        sampler=chosen,
        levels=levels,
        recurrence=found,
        guidance_scale=guidance,
    )


def _parse(asked: str, model: str, sampling: Sampling) -> tuple[str, int]:
    name, _, number = asked.partition(":")
    try:
        split(name, offered(sampling))
    except ValueError as error:
        raise ExportError(f"--sampler {asked}: {error}") from error
    if not number:
        return name, sampling.steps
    if not (number.isdecimal() and 1 <= int(number) <= sampling.max_steps):
        raise ExportError(
            f"--sampler {asked}: steps {number!r} are not possible: {model} takes 1 to {sampling.max_steps}"
        )
    return name, int(number)


def export_sampled(sampled: Sampled, graphs: Mapping[str, bytes], checks: Checks) -> Exported:
    """The graph, equal to the gateway's program within the tolerance and its rows found stable or refused.

    `graphs` holds the ONNX files of the model by the names of their graphs.
    """
    name = sampled.manifest.graph
    done = checks.start(f"{name}: build", 1)
    proto = _build(sampled, graphs)
    model = proto.SerializeToString(deterministic=True)
    session = open_session(model)
    done()
    sizes = [rows for rows in PARITY_ROWS if rows <= checks.max_rows]
    done = checks.start(f"{name}: against step by step", len(sizes))
    sessions = {graph: open_session(content) for graph, content in graphs.items()}
    error = 0.0
    for rows in sizes:
        error = max(error, _difference(sampled, session, sessions, rows, checks.tolerance))
        done()
    sizes = [rows for rows in STABLE_ROWS if rows <= checks.max_rows]
    min_rows = stable_among(
        session,
        _inputs(sampled.manifest, seed=1, rows=max(sizes)),
        sizes,
        done=checks.start(f"{name}: same row, same bytes", len(sizes)),
    )
    allow_unstable(name, min_rows, checks)
    return Exported(
        model=model,
        nodes=_nodes(proto.graph),
        record=record(hashlib.sha256(model).hexdigest(), error, min_rows),
        stable=min_rows is not None,
    )


def _build(sampled: Sampled, graphs: Mapping[str, bytes]) -> onnx.ModelProto:
    def part(manifest: Manifest) -> Part:
        return Part(manifest=manifest, model=onnx.load_from_string(graphs[manifest.graph]))

    decoder = part(sampled.decoder) if sampled.decoder else None
    model = sampler_model(part(sampled.denoiser), decoder, sampled.recurrence, sampled.guidance_scale)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{sampled.manifest.graph} becomes ONNX that does not check: {error}") from error
    return model


def _nodes(graph: onnx.GraphProto) -> int:
    """Number of nodes of a graph, those of bodies in it included."""
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return len(graph.node) + sum(map(_nodes, bodies))


def _inputs(manifest: Manifest, *, seed: int, rows: int) -> dict[str, NDArray[np.generic]]:
    """What the gateway gives a generator for a seed: noise, and classes drawn at random."""
    inputs: dict[str, NDArray[np.generic]] = {
        "latent": normal(seed, rows, manifest.inputs[0].shape, Stream.PRIOR)
    }
    if manifest.input("class_id") is not None:
        inputs["class_id"] = classes(seed, rows, len(manifest.class_labels))[:, None]
    return inputs


def _difference(
    sampled: Sampled,
    session: onnxruntime.InferenceSession,
    sessions: Mapping[str, onnxruntime.InferenceSession],
    rows: int,
    tolerance: float,
) -> float:
    """Largest difference to what the gateway's program makes of the same seed and classes."""
    inputs = _inputs(sampled.manifest, seed=rows, rows=rows)
    kind = sampled.denoiser.sampling.schedule.kind if sampled.denoiser.sampling else "edm"
    class_id = inputs.get("class_id")
    expected = _run(
        diffusion(
            sampled.denoiser,
            sampled.decoder,
            sampler=sampler(sampled.sampler, kind),
            sigmas=sampled.levels,
            seed=rows,
            count=rows,
            class_id=None if class_id is None else class_id[:, 0].astype(np.int64),
            guidance_scale=sampled.guidance_scale,
        ),
        sessions,
    )
    (drawn,) = session.run(["sample"], inputs)
    error = float(np.abs(drawn - expected).max())
    if not error <= tolerance:
        raise ExportError(
            f"{sampled.manifest.graph}, {rows} rows: the largest difference to sampling step by step is "
            f"{error:.2e}, above the tolerance {tolerance:.0e}: take another sampler, or allow it with "
            "--tolerance"
        )
    return error


def _run(program: Program[Array], sessions: Mapping[str, onnxruntime.InferenceSession]) -> Array:
    """Runs a program to its end, each call by the session of its graph."""
    reply: Tensors | None = None
    while True:
        try:
            wanted = program.send(reply)
        except StopIteration as stop:
            result: Array = stop.value
            return result
        reply = None
        if isinstance(wanted, Call):
            session = sessions[wanted.graph]
            names = [output.name for output in session.get_outputs()]
            reply = dict(zip(names, session.run(names, dict(wanted.inputs)), strict=True))

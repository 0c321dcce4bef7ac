"""A whole sampler as one ONNX graph: the denoiser in the body of a `Scan` over the sampler's coefficients.

    latent ─▶ states ─▶ Scan { states, coefficients ─▶ x ─▶ denoiser ─▶ denoised ─▶ states } ─▶ x ─▶ decoder

The weights are initialisers of the body itself, where onnxruntime packs them once for all calls, as it does
not with values from an outer scope. Around the denoiser stands the arithmetic of `serving.samplers.denoiser`,
operation by operation in float32, so that DDIM and Euler end in the very bits of the gateway's pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from export.nodes import Nodes
from export.onnx import ExportError
from export.recurrence import Recurrence
from serving.manifest import Manifest, TensorSpec
from serving.samplers.denoiser import SCALINGS, noise_level

_ELEMENT_TYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}

Tables = dict[str, NDArray[Any]]
"""What differs from call to call, by name; the first axis is the call."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A graph that becomes a part of the whole."""

    manifest: Manifest
    """What it is."""
    model: onnx.ModelProto
    """The graph as ONNX."""


def sampler_model(
    denoiser: Part, decoder: Part | None, steps: Recurrence, guidance_scale: float
) -> onnx.ModelProto:
    """The graph from `latent`, standard normal, and `class_id`, where there are classes, to `sample`."""
    if decoder is not None and _opset(decoder) != _opset(denoiser):
        raise ExportError(
            f"{denoiser.manifest.graph} and {decoder.manifest.graph} are of different opsets and cannot be "
            "one graph: export the model again"
        )
    inputs, outputs = tensors(denoiser.manifest, decoder.manifest if decoder else None)
    tables = _tables(denoiser.manifest, steps, guidance_scale)
    whole = Nodes()
    classes = "class_id"
    if "guidance_scale" in tables:
        null = whole.constant("null_class", np.array(len(denoiser.manifest.class_labels)))
        unconditional = whole.add("Expand", [null, whole.add("Shape", [classes])])
        classes = whole.add("Concat", [classes, unconditional], axis=0)
    body = _call(denoiser, classes, tables)
    scanned = [whole.constant(name, table) for name, table in tables.items()]
    last = whole.add(
        "Scan", [_first_states(whole, inputs[0], steps), *scanned], body=body, num_scan_inputs=len(tables)
    )
    result = whole.add("Gather", [last, whole.constant("x", np.array(0))], axis=0)
    if decoder is not None:
        given = {"latent": result, "class_id": "class_id"}
        result = whole.append(
            decoder.model.graph,
            "decoder",
            {spec.name: given[spec.name] for spec in decoder.manifest.inputs},
            "sample",
        )
    whole.add("Identity", [result], "sample")
    graph = helper.make_graph(
        whole.nodes,
        "sampler",
        [_value(spec) for spec in inputs],
        [_value(spec) for spec in outputs],
        whole.initializers,
    )
    return helper.make_model(
        graph,
        opset_imports=denoiser.model.opset_import,
        ir_version=denoiser.model.ir_version,
        producer_name="atelier",
    )


def tensors(
    denoiser: Manifest, decoder: Manifest | None
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the whole. Raises `ExportError` where the decoder takes what is not there."""
    x, class_id = denoiser.input("x"), denoiser.input("class_id")
    assert x is not None, "a denoiser has an x"
    latent = TensorSpec(name="latent", shape=x.shape)
    inputs = (latent,) if class_id is None else (latent, class_id)
    sample = decoder.output("sample") if decoder else TensorSpec(name="sample", shape=x.shape)
    assert sample is not None, "a decoder has a sample"
    if decoder is not None:
        strange = {spec.name for spec in decoder.inputs} - {spec.name for spec in inputs}
        if strange:
            raise ExportError(
                f"graph {decoder.graph!r} takes {', '.join(sorted(strange))}, which a sampler in one "
                "graph cannot give: serve the model by the gateway, step by step"
            )
    return inputs, (sample,)


def _tables(manifest: Manifest, steps: Recurrence, guidance_scale: float) -> Tables:
    """The coefficients of each call. `passes`, where only some are guided, is how often a row is called."""
    sampling = manifest.sampling
    assert sampling is not None, "a denoiser's manifest says how it is sampled"
    scaling = SCALINGS[sampling.parameterization.prediction]
    scalings = [scaling(sigma, sampling.parameterization.sigma_data) for sigma in steps.levels]
    columns: dict[str, Any] = {
        name: [getattr(each, name) for each in scalings] for name in ("c_in", "c_skip", "c_out")
    }
    columns["noise_level"] = [noise_level(sampling.schedule, sigma) for sigma in steps.levels]
    columns |= {"decay": steps.decay, "gain": steps.gain}
    tables: Tables = {name: np.asarray(column, np.float32) for name, column in columns.items()}
    above, up_to = sampling.guidance_interval or (0.0, inf)
    if manifest.input("class_id") is not None and guidance_scale != 1:
        guided = np.array([above < sigma <= up_to for sigma in steps.levels])
        if guided.any():
            tables["guidance_scale"] = np.where(guided, guidance_scale, 1).astype(np.float32)
        if guided.any() and not guided.all():
            tables["passes"] = 1 + guided.astype(np.int64)[:, None]
    return tables


def _first_states(whole: Nodes, latent: TensorSpec, steps: Recurrence) -> str:
    """[states, rows, ...]: x is the noise to scale, and the other states begin at 0."""
    x = whole.add("Mul", ["latent", whole.constant("start", np.asarray(steps.start[0], np.float32))])
    states = whole.add("Unsqueeze", [x, whole.constant("states_axis", np.array([0]))])
    others = len(steps.start) - 1
    if not others:
        return states
    none = [0] * (1 + len(latent.shape))
    return whole.add("Pad", [states, whole.constant("others", np.array([0, *none, others, *none]))])


def _call(denoiser: Part, classes: str, tables: Tables) -> onnx.GraphProto:
    """One call as the body of the scan: from states and the call's coefficients to the states after it."""
    manifest = denoiser.manifest
    body = Nodes("call/")
    before = "call/states"
    call = {name: f"call/{name}" for name in tables}
    x = body.add("Gather", [before, body.constant("x", np.array(0))], axis=0)
    denoised = _denoised(body, denoiser, x, classes, call)

    # As samplers write it: x = denoised + (x - denoised) · decay.
    states, *_ = tables["gain"].shape[1:]
    axes = len(manifest.inputs[0].shape)
    column = body.constant("column", np.array([states, *[1] * (1 + axes)]))
    gained = body.add("Mul", [body.add("Reshape", [call["gain"], column]), denoised])
    flat = body.constant("flat", np.array([states, -1]))
    distance = body.add("Reshape", [body.add("Sub", [before, denoised]), flat])
    decayed = body.add("MatMul", [call["decay"], distance])
    kept = body.add("Reshape", [decayed, body.add("Shape", [before])])
    after = body.add("Add", [gained, kept])

    shape = [states, "rows", *manifest.inputs[0].shape]
    value = helper.make_tensor_value_info
    scanned = [
        value(call[name], helper.np_dtype_to_tensor_dtype(table.dtype), table.shape[1:])
        for name, table in tables.items()
    ]
    return helper.make_graph(
        body.nodes,
        "call",
        [value(before, onnx.TensorProto.FLOAT, shape), *scanned],
        [value(after, onnx.TensorProto.FLOAT, shape)],
        body.initializers,
    )


def _denoised(body: Nodes, denoiser: Part, x: str, classes: str, call: dict[str, str]) -> str:
    """The denoised image of x, guided where the call is: what `serving.samplers.denoiser` does."""
    zero, one = body.constant("0", np.array([0])), body.constant("1", np.array([1]))
    fed = body.add("Mul", [call["c_in"], x])
    rows = called = body.add("Slice", [body.add("Shape", [x]), zero, one])
    guided = "guidance_scale" in call
    if guided:
        fed = body.add("Concat", [fed, fed], axis=0)
        passes = call.get("passes") or body.constant("2", np.array([2]))
        called = body.add("Mul", [rows, passes])
        if "passes" in call:
            fed, classes = (body.add("Slice", [both, zero, called]) for both in (fed, classes))
    level = body.add("Expand", [call["noise_level"], body.add("Concat", [called, one], axis=0)])
    given = {"x": fed, "noise_level": level, "class_id": classes}
    inputs = {spec.name: given[spec.name] for spec in denoiser.manifest.inputs}
    prediction = body.append(denoiser.model.graph, "denoiser", inputs, "prediction")
    if guided:
        end = body.constant("end", np.array([np.iinfo(np.int64).max]))
        with_class = body.add("Slice", [prediction, zero, rows])
        # The same rows where the call is not guided, and its scale 1: their difference is 0.
        without = body.add("Slice", [prediction, body.add("Neg", [rows]), end])
        difference = body.add("Sub", [with_class, without])
        prediction = body.add("Add", [without, body.add("Mul", [call["guidance_scale"], difference])])
    kept = body.add("Mul", [call["c_skip"], x])
    denoised = body.add("Add", [kept, body.add("Mul", [call["c_out"], prediction])])
    sampling = denoiser.manifest.sampling
    if sampling is None or not sampling.clip_denoised:
        return denoised
    low, high = (np.asarray(end, np.float32) for end in denoiser.manifest.value_range)
    return body.add("Clip", [denoised, body.constant("low", low), body.constant("high", high)])


def _opset(part: Part) -> dict[str, int]:
    return {opset.domain: opset.version for opset in part.model.opset_import}


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _ELEMENT_TYPES[spec.dtype], ["rows", *spec.shape])

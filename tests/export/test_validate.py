"""The checks of an export find what they look for, and nothing else."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_family import CLASS_ID, LATENT, SAMPLE, Decoder
from torch import Tensor, nn

from export.onnx import ExportError, OnnxGraph, export_graph
from export.validate import (
    draw,
    max_abs_error,
    noise_level_range,
    open_session,
    parity_cases,
    stability_sizes,
    stable_rows,
)
from training.family import Graph, GraphTensor

SIZE = (16, 24)
IMAGE = GraphTensor(name="image", shape=(3, -1, -1), multiple_of=4)
SAME = GraphTensor(name="sample", shape=(4,))


def graph_of(module: nn.Module) -> Graph:
    return Graph(role="decoder", module=module, inputs=(LATENT, CLASS_ID), outputs=(SAMPLE,))


def export(graph: Graph) -> tuple[OnnxGraph, onnxruntime.InferenceSession]:
    exported = export_graph(graph, size=SIZE)
    return exported, open_session(exported.model)


@pytest.fixture(scope="module")
def exported() -> OnnxGraph:
    torch.manual_seed(0)
    return export_graph(graph_of(Decoder(16, False)), size=SIZE)


def test_a_faithful_export_is_within_the_tolerance_and_its_error_is_told(exported: OnnxGraph) -> None:
    calls = []
    error = max_abs_error(
        exported, open_session(exported.model), max_rows=20, size=SIZE, done=lambda: calls.append(1)
    )
    assert 0 < error < 1e-5
    assert len(calls) == len(parity_cases(exported.graph, max_rows=20, size=SIZE))


def test_a_difference_is_an_error_with_graph_output_rows_and_tolerance(exported: OnnxGraph) -> None:
    other = Decoder(16, False)
    other.load_state_dict(exported.module.state_dict())
    with torch.no_grad():
        other.convolve[1].bias += 1e-3
    wrong = dataclasses.replace(exported, module=other.requires_grad_(False))
    message = (
        r"graph 'decoder', output 'sample', 1 rows: .* is (9\.\d+e-04|1\.00e-03), above the tolerance 1e-04"
    )
    with pytest.raises(ExportError, match=message):
        max_abs_error(wrong, open_session(exported.model), max_rows=8, size=SIZE)
    assert max_abs_error(wrong, open_session(exported.model), max_rows=8, size=SIZE, tolerance=2e-3) > 9e-4


def test_an_export_that_gives_no_numbers_is_not_within_any_tolerance(exported: OnnxGraph) -> None:
    model = onnx.load_from_string(exported.model)
    for weight in model.graph.initializer:
        if weight.name == "first.bias":
            weight.CopyFrom(
                onnx.numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), "first.bias")
            )
    with pytest.raises(ExportError, match="the largest difference to torch is nan"):
        max_abs_error(exported, open_session(model.SerializeToString()), max_rows=8, size=SIZE, tolerance=10)


class Rounding(nn.Module):
    """A decoder of few grey levels."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, latent: Tensor) -> Tensor:
        return (latent * 8 + self.offset).round() / 8


def test_values_that_may_round_either_way_are_not_compared() -> None:
    module = Rounding(0.0)
    graph = Graph(role="decoder", module=module, inputs=(LATENT,), outputs=(SAME,))
    right, session = export(graph)
    assert max_abs_error(right, session, max_rows=64, size=SIZE) == 0
    # A computation as good as the other, off by less than anybody sees, that rounds ties apart.
    near = dataclasses.replace(right, module=Rounding(1e-5))
    assert max_abs_error(near, session, max_rows=64, size=SIZE) == 0
    with pytest.raises(ExportError, match=re.escape("the largest difference to torch is 1.25e-01")):
        max_abs_error(dataclasses.replace(right, module=Rounding(0.1)), session, max_rows=64, size=SIZE)


def test_a_graph_that_rounds_near_a_half_everywhere_is_refused() -> None:
    class Half(nn.Module):
        def forward(self, latent: Tensor) -> Tensor:
            return (latent * 0 + 0.5).round()

    exported, session = export(Graph(role="decoder", module=Half(), inputs=(LATENT,), outputs=(SAME,)))
    with pytest.raises(ExportError, match="rounds near a half in every row"):
        max_abs_error(exported, session, max_rows=8, size=SIZE)


def test_batches_go_from_one_row_to_the_most_and_images_to_other_sizes() -> None:
    translator = Graph(role="a_to_b", module=nn.Identity(), inputs=(IMAGE,), outputs=(IMAGE,))
    cases = parity_cases(translator, max_rows=64, size=SIZE)
    assert [rows for rows, size in cases if size == SIZE] == [1, 2, 3, 8, 17, 64]
    others = [size for _, size in cases if size != SIZE]
    assert len({height for height, _ in others}) > 1
    assert len({width for _, width in others}) > 1
    assert all(height % 4 == width % 4 == 0 for height, width in others)
    assert [rows for rows, _ in parity_cases(graph_of(nn.Identity()), max_rows=3, size=SIZE)] == [1, 2, 3]
    assert parity_cases(graph_of(nn.Identity()), max_rows=1, size=SIZE) == [(1, SIZE)]


def test_inputs_are_drawn_as_they_are_described() -> None:
    schedule = {"kind": "edm", "sigma_min": 0.002, "sigma_max": 80.0}
    graph = Graph(
        role="denoiser",
        module=nn.Identity(),
        inputs=(
            GraphTensor(name="x", shape=(1, 8, 8)),
            GraphTensor(name="noise_level", shape=(1,)),
            CLASS_ID,
            IMAGE,
        ),
        outputs=(SAME,),
        sampling={"parameterization": {"prediction": "edm"}, "schedule": schedule},
    )
    inputs = draw(graph, 200, SIZE, np.random.default_rng(0))
    assert {name: value.shape for name, value in inputs.items()} == {
        "x": (200, 1, 8, 8),
        "noise_level": (200, 1),
        "class_id": (200, 1),
        "image": (200, 3, *SIZE),
    }
    assert {name: value.dtype.name for name, value in inputs.items()} == {
        "x": "float32",
        "noise_level": "float32",
        "class_id": "int64",
        "image": "float32",
    }
    assert set(inputs["class_id"].ravel()) == {0, 1, 2}
    assert math.log(0.002) / 4 <= inputs["noise_level"].min() < -1.3
    assert 0.9 < inputs["noise_level"].max() <= math.log(80) / 4
    assert inputs["x"].std() == pytest.approx(1, abs=0.05)
    assert np.abs(inputs["image"]).max() <= 1


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("edm", (math.log(0.25) / 4, math.log(4.0) / 4)),
        ("flow", (0.2, 0.8)),
        ("epsilon", (0, 499)),
        ("v", (0, 499)),
    ],
)
def test_noise_levels_span_what_samplers_feed(prediction: str, expected: tuple[float, float]) -> None:
    schedule = {"kind": "any", "sigma_min": 0.25, "sigma_max": 4.0, "timesteps": 500}
    sampling = {"parameterization": {"prediction": prediction}, "schedule": schedule}
    assert noise_level_range(sampling) == pytest.approx(expected)


def test_ids_without_a_bound_cannot_be_drawn() -> None:
    graph = graph_of(nn.Identity())
    unbounded = dataclasses.replace(graph, inputs=(dataclasses.replace(CLASS_ID, high=None),))
    with pytest.raises(ExportError, match="input 'class_id' is int64 and declares no `high`"):
        draw(unbounded, 2, SIZE, np.random.default_rng(0))


def test_rows_of_a_plain_network_are_the_same_in_any_company(exported: OnnxGraph) -> None:
    calls = []
    session = open_session(exported.model)
    rows = stable_rows(exported.graph, session, max_rows=64, size=SIZE, done=lambda: calls.append(1))
    assert rows == 1
    assert len(calls) == len(stability_sizes(64))


def test_rows_that_see_their_neighbours_are_found() -> None:
    torch.manual_seed(0)
    exported, session = export(graph_of(Decoder(16, True)))
    assert stable_rows(exported.graph, session, max_rows=64, size=SIZE) is None


@pytest.mark.parametrize(("special", "expected"), [(0, 1), (1, 2), (2, None), (17, None)])
def test_a_batch_size_that_computes_otherwise_is_found(special: int, expected: int | None) -> None:
    graph = Graph(role="decoder", module=nn.Identity(), inputs=(LATENT,), outputs=(SAME,))
    session = open_session(otherwise_at(special))
    assert stable_rows(graph, session, max_rows=64, size=SIZE) == expected


def otherwise_at(rows: int) -> bytes:
    """A graph whose results differ in the last places in batches of so many rows."""
    make = onnx.helper.make_node
    nodes = [
        make("Shape", ["latent"], ["shape"], start=0, end=1),
        make("Equal", ["shape", "special"], ["is_special"]),
        make("Cast", ["is_special"], ["one"], to=onnx.TensorProto.FLOAT),
        make("Mul", ["one", "little"], ["bit"]),
        make("Add", ["latent", "bit"], ["sample"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "otherwise",
        [onnx.helper.make_tensor_value_info("latent", onnx.TensorProto.FLOAT, ["rows", 4])],
        [onnx.helper.make_tensor_value_info("sample", onnx.TensorProto.FLOAT, ["rows", 4])],
        [
            onnx.numpy_helper.from_array(np.array([rows]), "special"),
            onnx.numpy_helper.from_array(np.array([1e-6], np.float32), "little"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())

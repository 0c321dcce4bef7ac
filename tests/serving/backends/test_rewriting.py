"""Rewritten graphs compute what the published ones do, in fewer nodes; what no rule knows stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from export.onnx import export_graph
from export.probes import open_session
from export.validate import stability_sizes, stable_among
from serving.backends.rewriting import rewritten
from serving.backends.rewriting.graph import Graph as Values
from serving.backends.rewriting.linear import linear
from serving.catalog import scan
from serving.manifest import Manifest, TensorSpec
from training.family import Graph, GraphTensor

REPOSITORY = Path(__file__).parents[3] / "model_repository"
SHIPPED = {manifest.graph: manifest for manifest in scan(REPOSITORY).manifests}
REWRITTEN = {
    "digits_gan",
    "digits_unet_denoiser",
    "digits_unet_onestep_denoiser",
    "emoji_unet",
    "shapes_unet",
}
CHANNELS, FEATURES, SIDE = 16, 8, 6
H = GraphTensor(name="h", shape=(FEATURES,))

Inputs = dict[str, NDArray[Any]]


class Norm(nn.Module):
    """A group normalisation with weights of its own, and what comes after it."""

    def __init__(self, after: Callable[[Tensor], Tensor] = F.silu, groups: int = 4) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, CHANNELS)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.norm(x))


class Modulated(nn.Module):
    """A group normalisation that an embedding scales and shifts."""

    def __init__(
        self, gate: Callable[[Tensor], Tensor] = lambda scale: 1 + scale, affine: bool = True
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, CHANNELS, affine=affine)
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)
        self.modulate = nn.Linear(FEATURES, 2 * CHANNELS)
        self.gate = gate

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        scale, shift = self.modulate(h)[:, :, None, None].chunk(2, dim=1)
        return F.silu(self.norm(x) * self.gate(scale) + shift)


class Attention(nn.Module):
    """Attention over pixels, its operands packed in one convolution in the given order."""

    def __init__(
        self, heads: int = 2, order: tuple[int, int, int] = (0, 1, 2), value_scale: float = 1
    ) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(CHANNELS, 3 * CHANNELS, 1)
        self.heads, self.order, self.value_scale = heads, order, value_scale

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).reshape(x.shape[0], 3, self.heads, CHANNELS // self.heads, SIDE * SIDE)
        packed = heads.transpose(3, 4).unbind(1)
        query, key, value = (packed[part] for part in self.order)
        attended = F.scaled_dot_product_attention(query, key, self.value_scale * value).transpose(2, 3)
        return attended.reshape(x.shape[0], CHANNELS, SIDE, SIDE)


def exported(module: nn.Module, *, channels: int = CHANNELS, dynamic: bool = False) -> bytes:
    """The file as the exporter writes it."""
    modulated = isinstance(module, Modulated)
    shape = (-1, -1) if dynamic else (SIDE, SIDE)
    inputs = (GraphTensor(name="x", shape=(CHANNELS, *shape)), *((H,) if modulated else ()))
    output = GraphTensor(name="sample", shape=(channels, *shape))
    graph = Graph(role="decoder", module=module, inputs=inputs, outputs=(output,))
    return export_graph(graph, size=(SIDE, SIDE)).model


def drawn(model: bytes, rows: int) -> Inputs:
    rng = np.random.default_rng(rows)
    sizes = [
        (i.name, [a if isinstance(a, int) else SIDE for a in i.shape[1:]])
        for i in open_session(model).get_inputs()
    ]
    return {name: rng.standard_normal((rows, *size)).astype(np.float32) for name, size in sizes}


def run(model: bytes, inputs: Inputs) -> list[NDArray[Any]]:
    outputs: list[NDArray[Any]] = open_session(model).run(None, inputs)
    return outputs


def nodes(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(model).graph.node)


def checked(model: bytes) -> Counter[str]:
    """The operators of a model once it has been rewritten, the same function and for a row the same bytes."""
    shorter = rewritten(model)
    onnx.checker.check_model(onnx.load_model_from_string(shorter), full_check=True)
    for rows in (1, 2, 5):
        inputs = drawn(model, rows)
        for left, right in zip(run(model, inputs), run(shorter, inputs), strict=True):
            np.testing.assert_allclose(left, right, atol=2e-6, rtol=2e-6)
    assert stable_among(open_session(shorter), drawn(model, 17), stability_sizes(17)) == 1
    return nodes(shorter)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("groups", [1, 4, CHANNELS])
def test_a_normalisation_and_its_weights_become_one_scale_and_shift(groups: int) -> None:
    found = checked(exported(Norm(groups=groups)))
    assert found["BatchNormalization"] == found["InstanceNormalization"] == 1
    assert found["Mul"] == 1, "the activation's own"
    assert found["Add"] == 0


@pytest.mark.parametrize("affine", [True, False])
def test_a_modulation_becomes_part_of_them_and_of_its_own_weights(affine: bool) -> None:
    found = checked(exported(Modulated(affine=affine)))
    assert found["BatchNormalization"] == found["InstanceNormalization"] == 1
    assert found["Mul"] == 1, "the activation's own"
    assert found["Add"] == found["Split"] == found["Unsqueeze"] == 0


def test_modulations_on_the_same_embedding_share_what_is_one_and_zero() -> None:
    class Two(Modulated):
        def __init__(self) -> None:
            super().__init__()
            self.second = Modulated()

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return self.second(super().forward(x, h), h)

    found = checked(exported(Two()))
    assert found["BatchNormalization"] == found["ConstantOfShape"] == 2


def test_where_the_modulation_is_not_linear_the_weights_alone_are_joined() -> None:
    model = exported(Modulated(torch.sigmoid))
    found = checked(model)
    assert found["BatchNormalization"] == 1
    assert found["Mul"] == nodes(model)["Mul"] - 1


def test_a_modulation_that_is_the_same_for_all_images_is_left_alone() -> None:
    class ByItself(Modulated):
        def __init__(self) -> None:
            super().__init__()
            self.learned = nn.Parameter(torch.randn(1, FEATURES))

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return super().forward(x, self.learned + 0 * h.sum())  # or the exporter would compute it

    checked(exported(ByItself()))


@pytest.mark.timeout(30)
def test_sums_of_sums_are_not_looked_through_once_for_every_way_down() -> None:
    depth = 60
    nodes = [helper.make_node("Gemm", ["h", "weight"], ["sum_0"])]
    nodes += [helper.make_node("Add", [f"sum_{n}"] * 2, [f"sum_{n + 1}"]) for n in range(depth)]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", FEATURES])
        for name in ("h", f"sum_{depth}")
    ]
    weight = onnx.numpy_helper.from_array(np.eye(FEATURES, dtype=np.float32), "weight")
    graph = helper.make_graph(nodes, "sums", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert linear(Values(model), f"sum_{depth}") is None


def test_before_a_convolution_of_single_pixels_they_are_put_into_its_weights() -> None:
    convolution = nn.Conv2d(CHANNELS, 3, 1)
    found = checked(exported(Norm(lambda x: torch.tanh(convolution(x))), channels=3))
    assert found["Conv"] == 1
    assert found["BatchNormalization"] == found["Mul"] == found["Add"] == 0


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(CHANNELS, 3, 3, padding=1),
        nn.Conv2d(CHANNELS, 4, 1, groups=4),
        nn.Conv2d(CHANNELS, 3, 1, bias=False),
    ],
    ids=["padded", "grouped", "without bias"],
)
def test_before_any_other_convolution_they_stay(convolution: nn.Conv2d) -> None:
    channels = convolution.out_channels
    # Something between, or the convolution would be the exporter's output, whose name must stay.
    found = checked(exported(Norm(lambda x: F.silu(convolution(x))), channels=channels))
    assert found["BatchNormalization"] == (convolution.bias is not None)


def test_what_a_graph_gives_and_what_others_take_too_stays_as_it_is() -> None:
    assert checked(exported(Norm(lambda x: x)))["BatchNormalization"] == 0
    found = checked(exported(Norm(lambda x: F.silu(x) * x)))
    assert found["BatchNormalization"] == 1


def test_images_of_any_size_are_left_alone() -> None:
    model = exported(Norm(), dynamic=True)
    assert rewritten(model) == model


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_does_without_turning_its_operands(heads: int) -> None:
    model = exported(Attention(heads))
    found = checked(model)
    assert found["Transpose"] == 2, "those that the multiplications take as they are"
    assert found["Slice"] == found["Squeeze"] == found["Shape"] == 0
    assert found.total() < nodes(model).total() / 2


def test_the_order_in_which_operands_are_packed_does_not_matter() -> None:
    assert checked(exported(Attention(order=(2, 0, 1))))["Slice"] == 0


def test_attention_whose_values_are_scaled_is_left_alone() -> None:
    model = exported(Attention(value_scale=3.0))
    assert rewritten(model) == model


def test_the_same_file_is_rewritten_to_the_same_bytes() -> None:
    model = exported(Modulated())
    assert rewritten(model) == rewritten(model) != model


def test_what_is_no_model_is_left_to_whoever_opens_it() -> None:
    assert rewritten(b"not a model") == b"not a model"


def test_old_opsets_are_left_alone() -> None:
    model = onnx.load_model_from_string(exported(Norm()))
    model.opset_import[0].version = 14
    assert rewritten(model.SerializeToString()) == model.SerializeToString()


def test_graphs_that_hold_graphs_are_left_alone() -> None:
    model = onnx.load_model_from_string(exported(Norm()))
    taken = model.graph.node[0].output[0]
    branch = helper.make_graph(
        [helper.make_node("Identity", [taken], ["inner"])],
        "branch",
        [],
        [helper.make_empty_tensor_value_info("inner")],
    )
    condition = helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
    model.graph.initializer.append(condition)
    node = helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)
    assert rewritten(model.SerializeToString()) == model.SerializeToString()


def test_weights_in_half_precision_are_left_alone() -> None:
    model = onnx.load_model_from_string(exported(Norm()))
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(onnx.numpy_helper.from_array(half, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    assert rewritten(model.SerializeToString()) == model.SerializeToString()


@pytest.mark.parametrize("graph", sorted(SHIPPED))
def test_every_shipped_graph_computes_what_was_published(graph: str) -> None:
    manifest = SHIPPED[graph]
    version = max(manifest.versions)
    model = (REPOSITORY / graph / str(version) / "model.onnx").read_bytes()
    shorter = rewritten(model)
    assert (shorter != model) == (graph in REWRITTEN)
    pool = min(33, manifest.max_batch_size)
    inputs = {spec.name: _input(spec, manifest, pool) for spec in manifest.inputs}
    session = open_session(shorter)
    for left, right in zip(run(model, inputs), session.run(None, inputs), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5, rtol=1e-5)
    if shorter != model:
        assert nodes(shorter).total() < nodes(model).total()
        stable = stable_among(session, inputs, stability_sizes(manifest.max_batch_size))
        assert stable is not None
        assert stable <= manifest.versions[version].min_rows


def test_a_network_passes_less_often_over_its_images(tmp_path: Path) -> None:
    """Each of these operators is a pass; what they take in time depends on who else is there."""
    model = (REPOSITORY / "shapes_unet" / "1" / "model.onnx").read_bytes()
    passes = {"Mul", "Add", "BatchNormalization", "Transpose", "InstanceNormalization", "Sigmoid"}
    before, after = (_optimized(each, tmp_path / "optimized.onnx") for each in (model, rewritten(model)))
    assert sum(after[name] for name in passes) < 0.6 * sum(before[name] for name in passes)
    assert after["Conv"] == before["Conv"]


def _optimized(model: bytes, path: Path) -> Counter[str]:
    """The operators that onnxruntime makes of a file for this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return nodes(path.read_bytes())


def _input(spec: TensorSpec, manifest: Manifest, rows: int) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    shape = (rows, *(32 if axis < 0 else axis for axis in spec.shape))
    if spec.dtype == "int64":
        return rng.integers(0, max(1, len(manifest.class_labels)), shape)
    return rng.standard_normal(shape).astype(np.float32)

"""An exported graph is one file that says nothing but what it computes."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_family import CLASS_ID, LATENT, SAMPLE, Decoder
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from export.onnx import OPSET, ExportError, OnnxGraph, export_graph
from export.validate import open_session
from training.family import Graph, GraphTensor

SIZE = (16, 16)
IMAGE = GraphTensor(name="image", shape=(3, -1, -1), multiple_of=4)
TRANSLATED = GraphTensor(name="translated", shape=(3, -1, -1), multiple_of=4)


class Compute(nn.Module):
    """A module that is one function."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, latent: Tensor) -> object:
        return self.function(latent)


def decoder() -> Graph:
    torch.manual_seed(0)
    return Graph(role="decoder", module=Decoder(16, False), inputs=(LATENT, CLASS_ID), outputs=(SAMPLE,))


def translator() -> Graph:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        nn.InstanceNorm2d(8, affine=True),
        nn.Conv2d(8, 8, 4, 4),
        nn.ConvTranspose2d(8, 3, 4, 4),
    )
    return Graph(role="a_to_b", module=module, inputs=(IMAGE,), outputs=(TRANSLATED,))


@pytest.fixture(scope="module")
def exported() -> OnnxGraph:
    return export_graph(decoder(), size=SIZE)


def shapes(values: object) -> dict[str, list[int | str]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in values
    }


def test_inputs_and_outputs_are_as_declared_with_dynamic_rows(exported: OnnxGraph) -> None:
    model = onnx.load_from_string(exported.model)
    assert shapes(model.graph.input) == {"latent": ["rows", 4], "class_id": ["rows", 1]}
    assert shapes(model.graph.output) == {"sample": ["rows", 1, 8, 8]}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]


def test_every_weight_is_an_initialiser_inside_the_file(exported: OnnxGraph) -> None:
    model = onnx.load_from_string(exported.model)
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}
    for name, parameter in exported.module.named_parameters():
        same = [value for value in stored.values() if value.size == parameter.numel()]
        assert any(np.allclose(np.sort(v, None), np.sort(parameter.numpy(), None)) for v in same), name
    assert not any(weight.external_data for weight in model.graph.initializer)
    assert not set(stored) & {value.name for value in model.graph.input}


def test_a_large_constant_of_the_forward_becomes_an_initialiser() -> None:
    table = torch.arange(400.0).reshape(4, 100).numpy()
    module = Compute(lambda latent: latent @ torch.tensor(table))
    wide = GraphTensor(name="sample", shape=(100,))
    result = export_graph(Graph(role="decoder", module=module, inputs=(LATENT,), outputs=(wide,)), size=SIZE)
    model = onnx.load_from_string(result.model)
    assert any(weight.dims == [4, 100] for weight in model.graph.initializer)
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    assert all(np.prod(constant.dims) <= 64 for constant in constants)


def test_a_file_says_nothing_of_where_it_was_made(exported: OnnxGraph) -> None:
    model = onnx.load_from_string(exported.model)
    assert not model.metadata_props
    assert not model.graph.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for path in (str(Path(__file__).parent), sys.prefix, "site-packages", ".py"):
        assert path.encode() not in exported.model


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from test_onnx import SIZE, decoder, export_graph
print(export_graph(decoder(), size=SIZE).sha256)
"""


def test_the_same_weights_give_the_same_bytes_here_and_in_another_process(exported: OnnxGraph) -> None:
    assert export_graph(decoder(), size=SIZE).model == exported.model
    command = [sys.executable, "-c", SCRIPT.format(here=str(Path(__file__).parent))]
    other = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert other.stdout.strip() == exported.sha256


def test_other_weights_give_other_bytes(exported: OnnxGraph) -> None:
    graph = decoder()
    torch.nn.init.ones_(graph.module.first.bias)
    assert export_graph(graph, size=SIZE).sha256 != exported.sha256


def test_the_module_that_is_exported_stays_as_it_was() -> None:
    graph = decoder()
    graph.module.train()
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    export_graph(graph, size=SIZE)
    assert graph.module.training
    assert all(parameter.requires_grad for parameter in graph.module.parameters())
    assert all(torch.equal(before[name], value) for name, value in graph.module.state_dict().items())


@pytest.mark.parametrize("size", [(16, 16), (16, 24)], ids=["square", "oblong"])
def test_height_and_width_are_dynamic_and_independent(size: tuple[int, int]) -> None:
    result = export_graph(translator(), size=size)
    model = onnx.load_from_string(result.model)
    assert shapes(model.graph.input) == {"image": ["rows", 3, "height", "width"]}
    session = open_session(result.model)
    for rows, height, width in ((1, 16, 16), (3, 20, 64), (2, 48, 8)):
        image = np.random.default_rng(0).uniform(-1, 1, (rows, 3, height, width)).astype(np.float32)
        (output,) = session.run(None, {"image": image})
        expected = result.module(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(output, expected, atol=1e-5)


def test_a_spectral_norm_is_folded_into_the_weight() -> None:
    graph = decoder()
    graph.module.first = spectral_norm(graph.module.first)
    graph.module.eval()
    result = export_graph(graph, size=SIZE)
    assert "first.weight" in {name for name, _ in result.module.named_parameters()}
    latent, class_id = torch.randn(3, 4), torch.tensor([[0], [1], [2]])
    (output,) = open_session(result.model).run(None, {"latent": latent.numpy(), "class_id": class_id.numpy()})
    np.testing.assert_allclose(output, graph.module(latent, class_id).detach().numpy(), atol=1e-5)


def test_folding_leaves_the_original_its_spectral_norm() -> None:
    graph = decoder()
    graph.module.first = spectral_norm(graph.module.first)
    export_graph(graph, size=SIZE)
    assert is_parametrized(graph.module.first, "weight")
    assert graph.module.first(torch.ones(1, 4)).shape == (1, 256)


def test_the_exporter_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_graph(translator(), size=SIZE)
    assert capfd.readouterr() == ("", "")


def test_a_warning_of_the_model_itself_is_heard() -> None:
    def forward(latent: Tensor) -> Tensor:
        warnings.warn("this model is odd", stacklevel=2)
        return latent * 2

    same = dataclasses.replace(LATENT, name="sample")
    graph = Graph(role="decoder", module=Compute(forward), inputs=(LATENT,), outputs=(same,))
    with pytest.warns(UserWarning, match="this model is odd"):
        export_graph(graph, size=SIZE)


def one(function: Callable[..., object], **changes: object) -> Graph:
    same = dataclasses.replace(LATENT, name="sample")
    graph = Graph(role="decoder", module=Compute(function), inputs=(LATENT,), outputs=(same,))
    return dataclasses.replace(graph, **changes)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            one(lambda latent: (latent, latent)),
            "graph 'decoder' declares 1 outputs, its module returns 2",
        ),
        (
            one(lambda latent: latent[:, :2]),
            "declares output 'sample' as torch.float32 [4] a row, and for 2 rows its module gives "
            "torch.float32 [2, 2]",
        ),
        (one(lambda latent: latent.double()), "its module gives torch.float64 [2, 4]"),
        (one(lambda latent: latent.mean(0)), "its module gives torch.float32 [4]"),
        (
            one(lambda latent: latent.reshape(2, 4) * 2),
            "axis 0 of 'latent' must be dynamic and comes out fixed at 2; write its forward without sizes",
        ),
        (
            one(lambda latent: torch.linalg.svdvals(latent[..., None]).repeat(1, 4)),
            "does not export: No ONNX function found for",
        ),
        (
            one(lambda latent: latent, inputs=(dataclasses.replace(LATENT, dtype=torch.float16),)),
            "input 'latent' is torch.float16: declare it torch.float32 or torch.int64",
        ),
        (
            one(lambda latent: latent, inputs=(dataclasses.replace(LATENT, shape=(-1,)),)),
            "only the height and width of an image [channels, height, width] can be dynamic",
        ),
    ],
)
def test_a_graph_that_is_not_what_it_declares_is_refused(graph: Graph, message: str) -> None:
    with pytest.raises(ExportError, match=re.escape(message)):
        export_graph(graph, size=SIZE)

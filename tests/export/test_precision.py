"""Graphs in lower precision keep their interfaces and stay close to what they were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_models

from export.calibration import Inputs, Part, real_inputs
from export.onnx import ExportError
from export.precision import reduce, to_bfloat16, to_float16, to_int8
from export.validate import open_session, stable_among
from export.variant import relative_error
from serving.manifest import parse

REPOSITORY = Path(__file__).parents[2] / "model_repository"


class Shipped:
    """`digits_unet` as it ships, with inputs along its sampling trajectories."""

    def __init__(self) -> None:
        self.parts = [self._part("digits_unet_denoiser"), self._part("digits_unet_decoder")]
        self.model = (REPOSITORY / "digits_unet_denoiser" / "1" / "model.onnx").read_bytes()
        self.calibration = real_inputs(self.parts, None, seed=0, images=24)
        self.held_out: Inputs = real_inputs(self.parts, None, seed=1, images=8)["denoiser"]
        self.expected = self.parts[0].session.run(None, self.held_out)

    def _part(self, graph: str) -> Part:
        manifest = parse((REPOSITORY / graph / "config.pbtxt").read_text(), graph)
        return Part(
            manifest=manifest, session=open_session((REPOSITORY / graph / "1/model.onnx").read_bytes())
        )

    def error(self, model: bytes) -> float:
        return relative_error(self.expected, open_session(model).run(None, self.held_out))


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    return Shipped()


def operations(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def interface(model: bytes) -> list[tuple[str, str, list[object]]]:
    session = open_session(model)
    return [(t.name, t.type, t.shape) for t in (*session.get_inputs(), *session.get_outputs())]


def test_a_denoiser_has_a_row_for_every_image_and_step(shipped: Shipped) -> None:
    sampling = shipped.parts[0].manifest.sampling
    assert sampling is not None
    inputs = shipped.calibration["denoiser"]
    assert {name: values.shape for name, values in inputs.items()} == {
        "x": (24 * sampling.steps, 1, 8, 8),
        "noise_level": (24 * sampling.steps, 1),
        "class_id": (24 * sampling.steps, 1),
    }
    levels = inputs["noise_level"]
    assert len(np.unique(levels)) == sampling.steps
    assert shipped.calibration["decoder"]["latent"].shape == (24, 1, 8, 8)


def test_inputs_are_those_of_the_seed(shipped: Shipped) -> None:
    again = real_inputs(shipped.parts, None, seed=1, images=8)["denoiser"]
    for name, values in shipped.held_out.items():
        np.testing.assert_array_equal(again[name], values)
    calibrated = {image.tobytes() for image in shipped.calibration["denoiser"]["x"]}
    assert not calibrated & {image.tobytes() for image in shipped.held_out["x"]}


def test_int8_of_a_shipped_denoiser_is_close_with_rows_that_do_not_depend_on_their_batch(
    shipped: Shipped,
) -> None:
    model = to_int8(shipped.model, shipped.calibration["denoiser"], "uint8")
    assert interface(model) == interface(shipped.model)
    assert 0 < shipped.error(model) < 0.06
    assert len(model) < 0.4 * len(shipped.model)
    counted = operations(model)
    assert counted["QuantizeLinear"] > 0
    assert counted["Conv"] == operations(shipped.model)["Conv"]
    pool = {name: values[:17] for name, values in shipped.held_out.items()}
    assert stable_among(open_session(model), pool, [1, 2, 5, 16]) == 1


def test_int8_for_cpus_sums_two_products_within_16_bits(shipped: Shipped) -> None:
    """What CPUs without VNNI do (VPMADDUBSW), whatever the one that runs this does."""
    model = onnx.load_from_string(to_int8(shipped.model, shipped.calibration["denoiser"], "uint8"))
    weights = [
        onnx.numpy_helper.to_array(weight).astype(int)
        for weight in model.graph.initializer
        if weight.data_type == onnx.TensorProto.INT8 and len(weight.dims) > 1
    ]
    assert len(weights) > 10
    assert max(np.abs(weight).max() for weight in weights) * 255 * 2 <= np.iinfo(np.int16).max


def test_int8_for_tensorrt_is_signed_and_symmetric(shipped: Shipped) -> None:
    model = onnx.load_from_string(to_int8(shipped.model, shipped.calibration["denoiser"], "int8"))
    weights = {weight.name: weight for weight in model.graph.initializer}
    zeros = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert zeros
    for name in zeros:
        assert weights[name].data_type == onnx.TensorProto.INT8
        assert not onnx.numpy_helper.to_array(weights[name]).any()


def test_the_same_inputs_give_the_same_int8_file(shipped: Shipped) -> None:
    inputs = {name: values[:48] for name, values in shipped.calibration["denoiser"].items()}
    assert to_int8(shipped.model, inputs, "uint8") == to_int8(shipped.model, inputs, "uint8")


def test_float16_of_a_shipped_denoiser_is_close_and_half_as_large(shipped: Shipped) -> None:
    model = to_float16(shipped.model)
    assert interface(model) == interface(shipped.model)
    assert 0 < shipped.error(model) < 2e-3
    assert len(model) < 0.6 * len(shipped.model)


def test_sums_and_exponents_stay_float32_in_float16_graphs(shipped: Shipped) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(to_float16(shipped.model)))
    types = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    kept = [node for node in model.graph.node if node.op_type in ("Softmax", "InstanceNormalization")]
    assert kept
    assert {types[node.output[0]] for node in kept} == {onnx.TensorProto.FLOAT}
    products = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {types[node.output[0]] for node in products} == {onnx.TensorProto.FLOAT16}


def test_bfloat16_holds_weights_and_products_in_bfloat16_and_does_not_run_on_a_cpu(shipped: Shipped) -> None:
    model = to_bfloat16(shipped.model)
    parsed = onnx.load_from_string(model)
    weights = Counter(weight.data_type for weight in parsed.graph.initializer)
    assert weights[onnx.TensorProto.BFLOAT16] >= operations(shipped.model)["Conv"]
    assert len(model) < 0.6 * len(shipped.model)
    assert {tensor.type.tensor_type.elem_type for tensor in parsed.graph.output} == {onnx.TensorProto.FLOAT}
    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED|Could not find an implementation"):
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_a_graph_with_nothing_to_gain_is_left_as_it_is(precision: str) -> None:
    model = tiny_models.model(2.0)
    inputs = {"latent": np.zeros((32, 4), np.float32)}
    assert reduce(model, precision, inputs, "uint8") == model


def test_int8_without_inputs_is_refused() -> None:
    with pytest.raises(ExportError, match="int8 is calibrated on real inputs"):
        reduce(tiny_models.model(2.0), "int8", None, "uint8")


def test_the_error_is_a_share_of_what_is_expected() -> None:
    expected = [np.full((2, 3), 2.0, np.float32), np.full((2, 1), -4.0, np.float32)]
    assert relative_error(expected, expected) == 0
    assert relative_error(expected, [expected[0] * 1.1, expected[1]]) == pytest.approx(0.1, rel=1e-5)
    assert relative_error(expected, [expected[0], expected[1] * 0.5]) == pytest.approx(0.5)

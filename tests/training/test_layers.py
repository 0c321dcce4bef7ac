import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from export.onnx import export_graph
from training.family import Graph, GraphTensor
from training.layers import Enlarge, Shrink


def digits() -> torch.Tensor:
    return torch.tensor(load_digits().images[:300, None] / 8 - 1, dtype=torch.float32)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_enlarging_is_what_pillow_calls_bicubic():
    x = noise(1, 1, 8, 6)
    pillow = Image.fromarray(x[0, 0].numpy()).resize((24, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(Enlarge(4).interpolate(x)[0, 0], np.asarray(pillow), atol=1e-5)


def test_shrinking_takes_enlarging_back_before_the_clamp():
    x = noise(5, 3, 8, 12)
    torch.testing.assert_close(Shrink(3).invert(Enlarge(3).interpolate(x)), x, atol=1e-5, rtol=0)


def test_every_level_of_a_digit_comes_back_from_an_8_bit_picture():
    x = digits()
    picture = ((Enlarge(4)(x) + 1) * 127.5).round().to(torch.uint8)
    levels = (Shrink(4)(picture.float() / 127.5 - 1) * 8).round() / 8
    assert torch.equal(levels, x)


def test_an_enlarged_image_stays_within_range():
    enlarged = Enlarge(4)(digits())
    assert enlarged.shape == (300, 1, 32, 32)
    assert float(enlarged.min()) == -1
    assert float(enlarged.max()) == 1


def test_a_factor_of_one_changes_nothing():
    x = digits()
    assert torch.equal(Shrink(1)(Enlarge(1)(x)), x)


def test_a_size_that_the_factor_does_not_divide_is_named():
    with pytest.raises(ValueError, match="30×32 pixels was not enlarged ×4"):
        Shrink(4)(noise(1, 1, 30, 32))
    with pytest.raises(ValueError, match="factor 0"):
        Enlarge(0)


@pytest.mark.parametrize(("layer", "given", "made"), [(Enlarge(4), 8, 32), (Shrink(4), 32, 8)])
def test_the_exported_layer_gives_what_torch_gives(layer: nn.Module, given: int, made: int):
    graph = Graph(
        role="decoder",
        module=layer,
        inputs=(GraphTensor(name="latent", shape=(1, given, given)),),
        outputs=(GraphTensor(name="sample", shape=(1, made, made)),),
    )
    session = onnxruntime.InferenceSession(export_graph(graph, size=(given, given)).model)
    for rows in (1, 3):
        x = noise(rows, 1, given, given).clamp(-1, 1)
        np.testing.assert_allclose(session.run(None, {"latent": x.numpy()})[0], layer(x), atol=1e-5)

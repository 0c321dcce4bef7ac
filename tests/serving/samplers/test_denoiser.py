from typing import Any

import numpy as np
import pytest
import torch

from serving.calls import Array, Call
from serving.manifest import Manifest, NoiseSchedule, Parameterization, Sampling, TensorSpec
from serving.samplers.denoiser import SCALINGS, denoiser, noise_level, start_scale
from training import preconditioning

KINDS = {"edm": "edm", "flow": "flow", "epsilon": "vp_linear", "x0": "vp_cosine", "v": "vp_cosine"}


def manifest(prediction: str = "edm", labels: tuple[str, ...] = (), **sampling: Any) -> Manifest:
    shape = (1, 2, 2)
    inputs = [TensorSpec(name="x", shape=shape), TensorSpec(name="noise_level", shape=(1,))]
    if labels:
        inputs.append(TensorSpec(name="class_id", dtype="int64", shape=(1,)))
    return Manifest(
        graph="net",
        model="net",
        role="denoiser",
        family="diffusion",
        tasks=("generate",),
        roles=("denoiser",),
        inputs=tuple(inputs),
        outputs=(TensorSpec(name="prediction", shape=shape),),
        class_labels=labels,
        sampling=Sampling(
            parameterization=Parameterization(prediction=prediction, sigma_data=0.5),
            schedule=NoiseSchedule(kind=KINDS[prediction], sigma_min=0.01, sigma_max=100),
            sampler="euler",
            steps=4,
            **sampling,
        ),
    )


def asked(program: Any, answer: Array) -> tuple[Call, Array]:
    """The call of a denoiser, and what it makes of the answer."""
    call = next(program)
    with pytest.raises(StopIteration) as stop:
        program.send({"prediction": answer})
    return call, stop.value.value


@pytest.mark.parametrize("prediction", KINDS)
@pytest.mark.parametrize("sigma", [0.02, 0.7, 40.0])
def test_a_perfect_prediction_gives_the_image_back(prediction: str, sigma: float) -> None:
    random = np.random.default_rng(0)
    x0, n = random.standard_normal((2, 3, 1, 2, 2))
    x = (x0 + sigma * n).astype(np.float32)
    c_in, c_skip, c_out = SCALINGS[prediction](sigma, 0.5)
    target = {
        "edm": (x0 - c_skip * (x0 + sigma * n)) / c_out,
        "flow": n - x0,
        "epsilon": n,
        "x0": x0,
        "v": (n - sigma * x0) / np.sqrt(1 + sigma**2),
    }[prediction]
    call, denoised = asked(denoiser(manifest(prediction), None, 1.0)(x, sigma), target.astype(np.float32))
    np.testing.assert_allclose(denoised, x0, atol=3e-5)
    np.testing.assert_allclose(call.inputs["x"], c_in * x, rtol=1e-6)
    assert denoised.dtype == call.inputs["x"].dtype == np.float32


@pytest.mark.parametrize("prediction", KINDS)
def test_the_table_is_the_one_that_training_knows(prediction: str) -> None:
    levels = [0.02, 0.5, 7.0]
    kind = KINDS[prediction]
    trained = preconditioning.SCALINGS[prediction](torch.tensor(levels, dtype=torch.float64), 0.5)
    served = np.array([SCALINGS[prediction](sigma, 0.5) for sigma in levels])
    np.testing.assert_allclose(served, torch.stack(list(trained), dim=1), rtol=1e-12)
    schedule = NoiseSchedule(kind=kind, sigma_min=0.01, sigma_max=100)
    told = preconditioning.noise_level(kind, torch.tensor(levels, dtype=torch.float64), 1000)
    np.testing.assert_allclose([noise_level(schedule, sigma) for sigma in levels], told, rtol=1e-6)


def test_guidance_moves_from_the_unconditional_image_through_the_conditional_one() -> None:
    net = manifest("x0", labels=("cat", "dog"))
    x = np.zeros((2, 1, 2, 2), np.float32)
    conditional, unconditional = np.full_like(x, 0.5), np.full_like(x, 0.2)
    call, denoised = asked(
        denoiser(net, np.array([1, 0]), 3.0)(x, 1.0), np.concatenate([conditional, unconditional])
    )
    assert call.inputs["class_id"].tolist() == [[1], [0], [2], [2]]
    assert call.inputs["noise_level"].shape == (4, 1)
    np.testing.assert_allclose(denoised, 0.2 + 3 * 0.3, rtol=1e-6)


def test_without_guidance_the_unconditional_rows_are_left_out() -> None:
    net = manifest("x0", labels=("cat", "dog"))
    x = np.zeros((2, 1, 2, 2), np.float32)
    call, _ = asked(denoiser(net, np.array([1, 0]), 1.0)(x, 1.0), x)
    assert call.rows == 2


@pytest.mark.parametrize(("sigma", "rows"), [(0.2, 2), (0.21, 4), (1.0, 4), (2.0, 4), (2.1, 2)])
def test_outside_the_guidance_interval_the_unconditional_rows_are_left_out(sigma: float, rows: int) -> None:
    net = manifest("x0", labels=("cat", "dog"), guidance_interval=(0.2, 2.0))
    x = np.zeros((2, 1, 2, 2), np.float32)
    answer = np.repeat(np.array([0.5, 0.2], np.float32), 2)[:rows, None, None, None] + np.zeros_like(x[:1])
    call, denoised = asked(denoiser(net, np.array([1, 0]), 3.0)(x, sigma), answer)
    assert call.rows == rows
    np.testing.assert_allclose(denoised, 0.2 + 3 * 0.3 if rows == 4 else 0.5, rtol=1e-6)
    assert call.inputs["class_id"].tolist() == [[1], [0], [2], [2]][:rows]


def test_an_unconditional_model_is_never_called_twice() -> None:
    x = np.zeros((2, 1, 2, 2), np.float32)
    call, _ = asked(denoiser(manifest("x0"), None, 3.0)(x, 1.0), x)
    assert call.rows == 2
    assert "class_id" not in call.inputs


def test_the_denoised_image_is_clipped_where_the_manifest_says_so() -> None:
    x = np.zeros((1, 1, 2, 2), np.float32)
    _, clipped = asked(denoiser(manifest("x0", clip_denoised=True), None, 1.0)(x, 1.0), x + 3)
    _, free = asked(denoiser(manifest("x0"), None, 1.0)(x, 1.0), x + 3)
    assert clipped.max() == 1
    assert free.max() == 3


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_sampling_starts_from_what_the_graph_takes_for_pure_noise(prediction: str) -> None:
    net = manifest(prediction)
    scale = start_scale(net, 50.0)
    assert SCALINGS[prediction](50.0, 0.5).c_in * scale == pytest.approx(1)
    assert start_scale(manifest("edm"), 50.0) == 50

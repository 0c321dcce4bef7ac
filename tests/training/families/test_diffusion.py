"""The diffusion family: its loss, its samplers, its U-Net and its graphs."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from training.data import Batch, DataSpec
from training.families.diffusion import FAMILY
from training.families.diffusion.loss import diffusion_loss, draw_sigma, drop_labels, min_snr_weight
from training.families.diffusion.sampling import denoiser, euler, heun, sampling_sigmas, start
from training.families.diffusion.settings import DiffusionSettings
from training.family import Graph, Step
from training.preconditioning import SCALINGS

PREDICTIONS = ["epsilon", "x0", "v", "edm", "flow"]
DIGITS = DataSpec(
    name="digits", channels=1, height=8, width=8, class_labels=tuple("0123456789"), levels=17, enlarge=4
)
PLAIN = DataSpec(name="plain", channels=3, height=16, width=16)


def tiny(**settings: object) -> DiffusionSettings:
    return DiffusionSettings(**{"channels": 16, "multipliers": (1, 2), "blocks": 1, **settings})


def random_networks(config: DiffusionSettings, data: DataSpec) -> nn.ModuleDict:
    """Networks none of whose weights are at their initial zero."""
    torch.manual_seed(0)
    networks = FAMILY.networks(config, data)
    for parameter in networks.parameters():
        nn.init.normal_(parameter, std=0.1)
    return networks.eval()


class Ideal(nn.Module):
    """The perfect network for Gaussian data: the posterior mean of N(mean, std²) images in closed form."""

    def __init__(self, config: DiffusionSettings, mean: float, std: float) -> None:
        super().__init__()
        self.config, self.mean, self.std = config, mean, std

    def forward(self, x: Tensor, noise_level: Tensor, class_id: Tensor | None = None) -> Tensor:
        sigma = self.sigma(noise_level)[:, :, None, None]
        c_in, c_skip, c_out = SCALINGS[self.config.prediction](sigma, self.config.sigma_data)
        x = x / c_in
        denoised = (self.std**2 * x + sigma**2 * self.mean) / (self.std**2 + sigma**2)
        return (denoised - c_skip * x) / c_out

    def sigma(self, noise_level: Tensor) -> Tensor:
        return (
            noise_level / (1 - noise_level) if self.config.prediction == "flow" else (4 * noise_level).exp()
        )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_few_updates_lower_the_held_out_loss(prediction: str) -> None:
    config = tiny(prediction=prediction, lr=3e-3)
    torch.manual_seed(0)
    networks = FAMILY.networks(config, DIGITS)
    spec = FAMILY.optimizers(config)["unet"]
    optimizer = torch.optim.Adam(networks.parameters(), spec.lr, spec.betas)

    def update(name: str, loss: Tensor) -> None:
        assert name == "unet"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    labels = torch.arange(32) % 10
    pattern = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(1)).sign() * 0.7
    batch = Batch(images=pattern[labels], labels=labels)

    def held_out() -> float:
        generator = torch.Generator().manual_seed(7)
        return FAMILY.evaluate(config, networks, DIGITS, batch, generator)["held_out_loss"]

    before = held_out()
    for i in range(15):
        generator = torch.Generator().manual_seed(i)
        losses = FAMILY.step(
            Step(
                config=config,
                data=DIGITS,
                networks=networks,
                batch=batch,
                step=i,
                steps=15,
                update=update,
                generator=generator,
            )
        )
        assert not losses["loss"].requires_grad
    assert held_out() < 0.95 * before


@pytest.mark.parametrize("prediction", ["edm", "flow"])
@pytest.mark.parametrize("sampler", [euler, heun])
def test_samples_of_the_perfect_network_have_the_datas_distribution(prediction: str, sampler) -> None:
    config = tiny(prediction=prediction)
    denoise = denoiser(config, Ideal(config, 0.3, 0.5), None, 0, 1.0)
    noise = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    sigmas = sampling_sigmas(config, 64)
    images = sampler(denoise, start(config, noise, sigmas[0]), sigmas)
    assert float(images.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(images.std()) == pytest.approx(0.5, abs=0.02)


def test_heun_is_of_second_order_where_euler_is_of_first() -> None:
    config = tiny(prediction="edm", sigma_min=0.5, sigma_max=2.0)
    denoise = denoiser(config, Ideal(config, 0.0, 0.5), None, 0, 1.0)
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    exact = ((0.25 + 0.5**2) / (0.25 + 2.0**2)) ** 0.5

    def error(sampler, steps: int) -> float:
        # The last step, to zero, is left out: it is the same single call for both.
        return abs(float(sampler(denoise, x, sampling_sigmas(config, steps)[:-1].double())) - exact)

    assert error(euler, 16) / error(euler, 32) == pytest.approx(2, rel=0.2)
    assert error(heun, 16) / error(heun, 32) == pytest.approx(4, rel=0.2)


def test_guidance_goes_from_the_unconditional_through_the_conditional_image() -> None:
    config = tiny()
    unet = random_networks(config, DIGITS)["unet"]
    x, class_id, sigma = torch.randn(3, 1, 8, 8), torch.tensor([[1], [2], [3]]), torch.tensor(1.5)
    with torch.no_grad():
        conditional = denoiser(config, unet, class_id, 10, 1.0)(x, sigma)
        unconditional = denoiser(config, unet, torch.full_like(class_id, 10), 10, 1.0)(x, sigma)
        guided = denoiser(config, unet, class_id, 10, 3.0)(x, sigma)
    torch.testing.assert_close(guided, unconditional + 3 * (conditional - unconditional))


def test_the_flows_training_times_are_logit_normal() -> None:
    sigma = draw_sigma(tiny(), 20_000, torch.Generator().manual_seed(0))
    logit = torch.logit((sigma / (1 + sigma)).double())
    assert float(logit.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(logit.std()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_min_snr_weights_the_error_of_the_image_alike_in_every_parameterisation(prediction: str) -> None:
    config = tiny(prediction=prediction, min_snr_gamma=5.0)
    sigma = torch.tensor([0.1, 0.44, 0.46, 3.0])
    c_out = SCALINGS[prediction](sigma, 0.5).c_out
    weight = min_snr_weight(config, sigma, c_out) / c_out**2
    torch.testing.assert_close(weight, torch.minimum(sigma**-2, torch.tensor(5.0)))


def test_labels_are_dropped_to_the_null_class_at_the_configured_rate() -> None:
    class_id = torch.zeros(10_000, 1, dtype=torch.long)
    dropped = drop_labels(class_id, 10, 0.1, torch.Generator().manual_seed(0))
    assert set(dropped.unique().tolist()) == {0, 10}
    assert float((dropped == 10).float().mean()) == pytest.approx(0.1, abs=0.01)


def test_the_loss_is_a_function_of_the_generator() -> None:
    config = tiny()
    unet = random_networks(config, DIGITS)["unet"]
    images, class_id = torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, dtype=torch.long)

    def loss(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return diffusion_loss(config, unet, images, class_id, generator).item()

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_a_rows_result_does_not_depend_on_its_batch() -> None:
    unet = random_networks(tiny(), DIGITS)["unet"]
    x, level, class_id = torch.randn(5, 1, 8, 8), torch.rand(5, 1), torch.arange(5)[:, None]
    with torch.no_grad():
        together = unet(x, level, class_id)
        alone = torch.cat([unet(x[i : i + 1], level[i : i + 1], class_id[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together[1:] - together[:1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_class_and_noise_level_modulate_every_row() -> None:
    unet = random_networks(tiny(), DIGITS)["unet"]
    x = torch.randn(1, 1, 8, 8).expand(2, 1, 8, 8)
    with torch.no_grad():
        classes = unet(x, torch.full((2, 1), 0.5), torch.tensor([[1], [10]]))
        levels = unet(x, torch.tensor([[0.1], [0.9]]), torch.tensor([[1], [1]]))
    assert (classes[0] - classes[1]).abs().max() > 1e-3
    assert (levels[0] - levels[1]).abs().max() > 1e-3


def test_images_that_the_network_cannot_halve_are_refused_by_their_size() -> None:
    odd = DataSpec(name="odd", channels=1, height=10, width=10)
    with pytest.raises(ValueError, match="10x10 do not divide by 4"):
        FAMILY.networks(tiny(multipliers=(1, 1, 1)), odd)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction": "score"}, "prediction 'score' is not one of epsilon, x0, v, edm, flow"),
        ({"channels": 20}, "channels must be a positive multiple of 8, got 20"),
        ({"prediction": "flow", "min_snr_gamma": 5.0}, "min_snr_gamma weights epsilon, x0 and v"),
        ({"guidance_scale": 2.0, "label_dropout": 0.0}, "set label_dropout"),
        (
            {"prediction": "v", "vp_schedule": "vp_linear", "timesteps": 20},
            "timesteps must be at least 21 for vp_linear, got 20: set more, 1000 as a rule",
        ),
        ({"prediction": "x0", "timesteps": 1}, "timesteps must be at least 2 for vp_cosine, got 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionSettings(**settings)


@pytest.mark.parametrize("data", [DIGITS, PLAIN], ids=["conditional", "unconditional"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_grid_has_as_many_images_as_asked_for(prediction: str, data: DataSpec) -> None:
    config = tiny(prediction=prediction, sample_steps=2)
    images = FAMILY.sample(config, random_networks(config, data), data, 12, torch.Generator().manual_seed(0))
    assert images.shape == (12, data.channels, data.height, data.width)
    assert images.abs().max() <= 1


@pytest.mark.parametrize(
    ("data", "settings"),
    [(DIGITS, {"attention": (8, 4)}), (PLAIN, {"unshuffle": 2, "prediction": "edm", "attention": (8,)})],
    ids=["conditional", "unconditional-unshuffled"],
)
def test_every_graph_gives_in_onnxruntime_what_it_gives_in_torch(data: DataSpec, settings: dict) -> None:
    config = tiny(**settings)
    graphs = FAMILY.graphs(config, random_networks(config, data), data)
    assert [graph.role for graph in graphs] == (["denoiser", "decoder"] if data.enlarge > 1 else ["denoiser"])
    for graph in graphs:
        session = export(graph)
        for rows in (1, 2, 5):
            inputs = draws(graph, rows)
            with torch.no_grad():
                expected = graph.module(*inputs)
            names = [tensor.name for tensor in graph.inputs]
            (found,) = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
            assert found.shape == (rows, *graph.outputs[0].shape)
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_guidance_is_left_out_outside_its_interval() -> None:
    config = tiny(guidance_interval=(0.5, 2.0))
    unet = random_networks(config, DIGITS)["unet"]
    x, class_id = torch.randn(3, 1, 8, 8), torch.tensor([[1], [2], [3]])
    with torch.no_grad():
        for sigma, guided in ((0.5, False), (0.6, True), (2.0, True), (2.1, False)):
            plain, scaled = (
                denoiser(config, unet, class_id, 10, scale)(x, torch.tensor(sigma)) for scale in (1.0, 3.0)
            )
            assert torch.equal(plain, scaled) != guided


def test_a_guidance_interval_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="guidance_interval needs 0 <= low < high in sigma, got 2 and 1"):
        tiny(guidance_interval=(2, 1))


def test_the_denoiser_says_how_to_sample_from_it() -> None:
    config = tiny(prediction="v", sampler="dpmpp_2m", sample_steps=9, guidance_scale=2.0)
    denoiser_graph = FAMILY.graphs(config, FAMILY.networks(config, DIGITS), DIGITS)[0]
    sampling = dict(denoiser_graph.sampling)
    schedule = sampling.pop("schedule")
    assert sampling == {
        "parameterization": {"prediction": "v", "sigma_data": 0.5},
        "sampler": "dpmpp_2m",
        "steps": 9,
        "guidance_scale": 2.0,
        "guidance_interval": None,
        "clip_denoised": False,
    }
    assert schedule["kind"] == "vp_cosine"
    assert 0 < schedule["sigma_min"] < schedule["sigma_max"]
    assert [tensor.high for tensor in denoiser_graph.inputs] == [None, None, 11]


def draws(graph: Graph, rows: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    return tuple(
        torch.randn((rows, *tensor.shape), generator=generator)
        if tensor.dtype == torch.float32
        else torch.randint(tensor.high, (rows, *tensor.shape), generator=generator)
        for tensor in graph.inputs
    )


def export(graph: Graph) -> onnxruntime.InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            graph.module,
            draws(graph, 2),
            dynamo=True,
            opset_version=20,
            verbose=False,
            input_names=[tensor.name for tensor in graph.inputs],
            output_names=[tensor.name for tensor in graph.outputs],
            dynamic_shapes=tuple({0: torch.export.Dim("rows")} for _ in graph.inputs),
        )
    buffer = io.BytesIO()
    program.save(buffer)
    return onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])

"""The variational autoencoder: its bound, its grey levels, its sizes and its graphs."""

import dataclasses
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.onnx import export_graph
from training.data import Batch, DataSpec
from training.data.open import open_data
from training.families import FAMILIES
from training.families.vae import FAMILY, DecoderGraph, Encoder, VAESettings
from training.family import Step
from training.layers import Enlarge
from training.resolve import resolve

DIGITS = open_data("digits")
SPEC = DIGITS.train.spec
COLOURS = DataSpec(name="colours", channels=3, height=32, width=32)


def networks(config: VAESettings, data: DataSpec = SPEC, seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return FAMILY.networks(config, data)


def digits(count: int) -> Batch:
    return DIGITS.train.batch(np.arange(count), np.random.default_rng(0))


def colours(count: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shades = torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1
    return Batch(images=shades.expand(count, 3, 32, 32).contiguous())


def train(config: VAESettings, data: DataSpec, batch: Batch, steps: int) -> tuple[nn.ModuleDict, list[float]]:
    nets = networks(config, data)
    spec = FAMILY.optimizers(config)["vae"]
    adam = torch.optim.Adam(nets.parameters(), lr=spec.lr)
    losses = []

    def update(name: str, loss: Tensor) -> None:
        assert name == "vae"
        adam.zero_grad()
        loss.backward()
        adam.step()

    for i in range(steps):
        figures = FAMILY.step(
            Step(
                config=config,
                data=data,
                networks=nets,
                batch=batch,
                step=i,
                steps=steps,
                update=update,
                generator=torch.Generator().manual_seed(i),
            )
        )
        losses.append(float(figures["loss"]))
    return nets, losses


def bits_per_dim(config: VAESettings, nets: nn.ModuleDict, data: DataSpec, batch: Batch) -> float:
    return FAMILY.evaluate(config, nets, data, batch, torch.Generator().manual_seed(0))["bits_per_dim"]


def test_the_family_is_found_by_its_name():
    assert resolve(FAMILIES, "vae", "family") is FAMILY


@pytest.mark.parametrize(
    ("config", "data", "batch"),
    [
        (VAESettings(hidden=64, lr=3e-3), SPEC, digits(64)),
        (VAESettings(hidden=32, channels=8, max_channels=16, sigma=0.2, lr=3e-3), COLOURS, colours(8)),
    ],
    ids=["mlp", "conv"],
)
def test_training_raises_the_bound(config: VAESettings, data: DataSpec, batch: Batch):
    before = bits_per_dim(config, networks(config, data), data, batch)
    nets, losses = train(config, data, batch, steps=60)
    assert losses[-1] < losses[0]
    assert bits_per_dim(config, nets, data, batch) < before - 0.1


def test_a_model_that_knows_nothing_pays_the_entropy_of_the_levels_and_no_rate():
    config = VAESettings(hidden=8, sigma=100.0)
    nets = networks(config)
    for parameter in nets.parameters():
        if parameter.ndim:
            nn.init.zeros_(parameter)
    # So wide a Gaussian has half of its mass beyond either end, and nothing between.
    batch = digits(100)
    ends = Batch(images=torch.where(batch.images > 0, 1.0, -1.0), labels=batch.labels)
    figures = FAMILY.evaluate(config, nets, SPEC, ends, torch.Generator())
    assert figures["rate_bits_per_dim"] == 0
    assert figures["bits_per_dim"] == pytest.approx(1, abs=0.02)


def test_free_bits_are_not_charged_for():
    batch = digits(32)
    config = VAESettings(hidden=16, sigma=0.3)
    (_, plain), (_, free) = (
        train(settings, SPEC, batch, steps=1)
        for settings in (config, dataclasses.replace(config, free_bits=2.0))
    )
    # A fresh encoder spends less than 2 bits on each of 16 dimensions, so exactly these are charged.
    rate = FAMILY.evaluate(config, networks(config), SPEC, batch, torch.Generator())["rate_bits_per_dim"] * 64
    assert free[0] - plain[0] == pytest.approx((16 * 2 - rate) * math.log(2), rel=1e-3)


def test_sigma_is_learned_towards_the_error_where_so_told_and_stays_where_not():
    config = VAESettings(hidden=32, lr=1e-2, sigma=0.1)
    fixed, _ = train(config, SPEC, digits(64), steps=40)
    learned, _ = train(dataclasses.replace(config, learn_sigma=True), SPEC, digits(64), steps=40)
    assert fixed["decoder"].log_sigma.item() == pytest.approx(math.log(0.1))
    assert learned["decoder"].log_sigma.item() > math.log(0.12)


def test_samples_have_the_grey_levels_of_the_data():
    config = VAESettings(hidden=16, decoder_noise=0.3)
    images = FAMILY.sample(config, networks(config), SPEC, 20, torch.Generator().manual_seed(0))
    assert images.shape == (20, 1, 8, 8)
    assert torch.equal((images * 8).round() / 8, images)
    assert len(images.unique()) > 5


def test_decoder_noise_is_scaled_and_zero_noise_decodes_the_mean():
    config = VAESettings(hidden=16, conditional=False)
    decoder = networks(config, COLOURS)["decoder"]
    graph = DecoderGraph(decoder, decoder_noise=0.01, levels=256, enlarge=1)
    latent, noise = torch.randn(2, 16), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        mean = decoder(latent)[0]
        torch.testing.assert_close(graph(latent, torch.zeros_like(noise)), mean.clamp(-1, 1))
        torch.testing.assert_close(graph(latent, noise), (mean + 0.01 * noise).clamp(-1, 1))


def test_architecture_follows_the_size_and_may_be_forced():
    assert not has_convolutions(VAESettings(), SPEC)
    assert has_convolutions(VAESettings(), COLOURS)
    assert has_convolutions(VAESettings(architecture="conv"), SPEC)
    assert not has_convolutions(VAESettings(architecture="mlp"), COLOURS)


def has_convolutions(config: VAESettings, data: DataSpec) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in Encoder(config, data).modules())


def test_an_encoder_graph_sees_through_enlargement():
    config = VAESettings(hidden=16)
    nets = networks(config)
    encoder = FAMILY.graphs(config, nets, SPEC)[1].module
    batch = digits(5)
    with torch.no_grad():
        mean, log_variance = encoder(Enlarge(SPEC.enlarge)(batch.images), batch.labels[:, None])
        expected = nets["encoder"](batch.images, batch.labels)
    torch.testing.assert_close((mean, log_variance), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latent_dim": 0}, r"vae.latent_dim must be at least 1, got 0"),
        ({"sigma": 0.0}, r"vae.sigma must be above 0, got 0.0"),
        ({"free_bits": -1.0}, r"vae.free_bits must be 0 or more, got -1.0"),
    ],
)
def test_settings_that_are_not_possible_are_named(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        VAESettings(**values)


@pytest.mark.parametrize(
    ("config", "data"),
    [
        (VAESettings(hidden=16, decoder_noise=0.1), SPEC),
        (VAESettings(hidden=16, channels=4, max_channels=8), COLOURS),
    ],
    ids=["conditional mlp, enlarged", "conv"],
)
def test_exported_graphs_give_what_torch_gives(config: VAESettings, data: DataSpec):
    for graph in FAMILY.graphs(config, networks(config, data), data):
        session = onnxruntime.InferenceSession(export_graph(graph, size=(data.height, data.width)).model)
        generator = torch.Generator().manual_seed(3)
        for rows in (1, 5):
            inputs = [
                torch.randint(tensor.high, (rows, 1), generator=generator)
                if tensor.high
                else torch.randn(rows, *tensor.shape, generator=generator).clamp(-1, 1)
                for tensor in graph.inputs
            ]
            named = {tensor.name: value.numpy() for tensor, value in zip(graph.inputs, inputs, strict=True)}
            with torch.no_grad():
                expected = graph.module.eval()(*inputs)
            results = [expected] if isinstance(expected, Tensor) else expected
            for given, wanted in zip(session.run(None, named), results, strict=True):
                np.testing.assert_allclose(given, wanted, atol=1e-4)

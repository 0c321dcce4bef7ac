"""The generative adversarial network: its losses and penalties, its sizes and its graph."""

import dataclasses
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from export.onnx import export_graph
from training.data import Batch, DataSpec
from training.data.open import open_data
from training.families import FAMILIES
from training.families.gan import FAMILY, LOSSES, GANSettings, Seen, gradient
from training.family import Step
from training.optimize import Updates
from training.resolve import resolve

SPEC = open_data("digits").train.spec
BARS = DataSpec(name="bars", channels=1, height=8, width=8, class_labels=("low", "high"))
SMALL = GANSettings(channels=8, discriminator_channels=8, latent_dim=8, lr=3e-3)


def networks(config: GANSettings, data: DataSpec, seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return FAMILY.networks(config, data)


def bars(rows: int, seed: int) -> Batch:
    """Grey pictures whose class says how bright they are."""
    labels = torch.randint(2, (rows,), generator=torch.Generator().manual_seed(seed))
    shade = torch.where(labels == 1, 0.6, -0.6)[:, None, None, None]
    return Batch(images=shade.expand(rows, 1, 8, 8).contiguous(), labels=labels)


class Trainer:
    """Adam for both players through the loop's own `Updates`, with Fabric's precision."""

    def __init__(self, config: GANSettings, data: DataSpec = BARS, precision: Any = "32-true") -> None:
        self.config, self.data = config, data
        self.fabric = Fabric(accelerator="cpu", precision=precision)
        self.networks = networks(config, data)
        self.updates = Updates(self.fabric, self.networks, FAMILY.optimizers(config))

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        with self.fabric.autocast():
            losses = FAMILY.step(
                Step(
                    config=self.config,
                    data=self.data,
                    networks=self.networks,
                    batch=batch,
                    step=step,
                    steps=100,
                    update=self.updates,
                    generator=torch.Generator().manual_seed(step),
                )
            )
        return {name: float(value) for name, value in losses.items()}


def linear_seen(weight: Tensor, rows: int = 4) -> Seen:
    """What a discriminator that is the inner product with `weight` makes of random images."""

    def discriminator(images: Tensor, labels: Tensor | None) -> Tensor:
        return images.flatten(1) @ weight

    images = torch.randn(2 * rows, 1, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return Seen(
        discriminator=discriminator,
        images=images,
        logits=discriminator(images, None),
        labels=None,
        generator=torch.Generator().manual_seed(0),
    )


def test_the_family_is_found_by_its_name():
    assert resolve(FAMILIES, "gan", "family") is FAMILY


def test_a_linear_discriminator_pays_its_squared_length_under_r1_and_r2():
    weight = torch.arange(9.0)
    assert LOSSES["r3gan"].penalty(linear_seen(weight)).item() == pytest.approx(204)
    assert LOSSES["hinge"].penalty(linear_seen(weight)).item() == pytest.approx(204)


def test_a_linear_discriminator_of_unit_length_pays_nothing_under_wasserstein():
    weight = torch.full((9,), 1 / 3)
    assert LOSSES["wasserstein"].penalty(linear_seen(weight)).item() == pytest.approx(0, abs=1e-9)
    assert LOSSES["wasserstein"].penalty(linear_seen(3 * weight)).item() == pytest.approx(4)


def test_a_penalty_can_itself_be_differentiated():
    weight = torch.arange(9.0).requires_grad_()
    (slope,) = torch.autograd.grad(LOSSES["r3gan"].penalty(linear_seen(weight)), weight)
    torch.testing.assert_close(slope, 2 * weight.detach())


def test_gradients_are_those_of_each_image_alone():
    images = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.testing.assert_close(gradient(images.square().sum((1, 2, 3)), images), 2 * images.flatten(1))


def test_the_relativistic_losses_compare_pairs_and_mirror_each_other():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])
    loss = LOSSES["r3gan"]
    expected = (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(2.0))) / 2
    assert loss.discriminator(real, fake).item() == pytest.approx(expected)
    assert torch.equal(loss.generator(real, fake), loss.discriminator(fake, real))
    torch.testing.assert_close(loss.discriminator(real + 7, fake + 7), loss.discriminator(real, fake))


def test_the_hinge_stops_pushing_beyond_the_margin():
    loss = LOSSES["hinge"]
    assert loss.discriminator(torch.tensor([1.5]), torch.tensor([-1.2])) == 0
    assert loss.discriminator(torch.tensor([0.0]), torch.tensor([0.5])) == 2.5
    assert loss.generator(torch.tensor([9.0]), torch.tensor([0.5])) == -0.5


@pytest.mark.parametrize("gamma", [0.2, 0.0])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_a_discriminator_step_changes_only_the_discriminator_before_the_generators_turn(
    loss: Any, gamma: float
):
    trainer = Trainer(dataclasses.replace(SMALL, loss=loss, gamma=gamma))
    names: list[str] = []
    before = {name: p.detach().clone() for name, p in trainer.networks.named_parameters()}
    real_update = trainer.updates

    def update(name: str, value: Tensor) -> None:
        real_update(name, value)
        names.append(name)
        moved = {
            key.split(".")[0]
            for key, p in trainer.networks.named_parameters()
            if not torch.equal(p, before[key])
        }
        assert moved == set(("discriminator", "generator")[: len(names)])

    trainer.updates = update
    trainer.step(0, bars(8, 0))
    assert names == ["discriminator", "generator"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_teaches_the_generator_what_the_classes_look_like(precision: str):
    trainer = Trainer(SMALL, precision=precision)
    for i in range(150):
        trainer.step(i, bars(16, i))
    images = FAMILY.sample(SMALL, trainer.networks, BARS, 20, torch.Generator().manual_seed(0))
    shades = images.mean((1, 2, 3))
    assert shades[0::2].mean() == pytest.approx(-0.6, abs=0.25)
    assert shades[1::2].mean() == pytest.approx(0.6, abs=0.25)


def test_a_step_is_repeated_exactly_by_the_same_generator():
    config = dataclasses.replace(SMALL, augment=("shift", "cutout"), augment_probability=0.7)
    ends = []
    for _ in range(2):
        trainer = Trainer(config)
        for i in range(3):
            trainer.step(i, bars(8, i))
        ends.append(trainer.networks.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 48), (256, 256)])
def test_both_networks_fit_any_size_with_and_without_classes(size: tuple[int, int]):
    for labels in ((), ("a", "b", "c")):
        data = DataSpec(name="any", channels=3, height=size[0], width=size[1], class_labels=labels)
        config = dataclasses.replace(SMALL, channels=4, discriminator_channels=4, max_channels=8)
        nets = networks(config, data)
        class_id = torch.tensor([0, 2]) if labels else None
        with torch.no_grad():
            images = nets["generator"](torch.randn(2, 8), class_id)
            assert images.shape == (2, 3, *size)
            assert nets["discriminator"](images, class_id).shape == (2,)


def test_classes_are_ignored_where_so_told():
    config = dataclasses.replace(SMALL, conditional=False)
    (graph,) = FAMILY.graphs(config, networks(config, BARS), BARS)
    assert [tensor.name for tensor in graph.inputs] == ["latent"]
    Trainer(config).step(0, bars(4, 0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "lsgan"}, r"gan.loss 'lsgan' is not one of r3gan, hinge, wasserstein"),
        ({"augment": ("rotate",)}, r"gan.augment 'rotate' is not one of flip, shift, colour, cutout"),
        ({"augment_probability": 1.5}, r"gan.augment_probability must be in \[0, 1\], got 1.5"),
        ({"gamma": -1.0}, r"gan.gamma must be 0 or more, got -1.0"),
        ({"channels": 0}, r"gan.channels must be at least 1, got 0"),
    ],
)
def test_settings_that_are_not_possible_are_named(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        GANSettings(**values)


@pytest.mark.parametrize(
    "data", [SPEC, DataSpec(name="any", channels=3, height=32, width=32)], ids=["digits", "colours"]
)
def test_the_exported_generator_gives_what_torch_gives(data: DataSpec):
    (graph,) = FAMILY.graphs(SMALL, networks(SMALL, data), data)
    session = onnxruntime.InferenceSession(export_graph(graph, size=(data.height, data.width)).model)
    generator = torch.Generator().manual_seed(1)
    for rows in (1, 5):
        inputs = [torch.randn(rows, 8, generator=generator)]
        if data.class_labels:
            inputs.append(torch.randint(10, (rows, 1), generator=generator))
        named = {tensor.name: value.numpy() for tensor, value in zip(graph.inputs, inputs, strict=True)}
        with torch.no_grad():
            expected = graph.module.eval()(*inputs)
        assert expected.shape == (rows, *graph.outputs[0].shape)
        np.testing.assert_allclose(session.run(None, named)[0], expected, atol=1e-4)

"""CycleGAN: what its losses teach, what its pool shows, and what its graphs compute."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from training.data import Batch, DataSpec
from training.data.open import open_data
from training.families import FAMILIES
from training.families.cyclegan import FAMILY, CycleGANSettings, identity_weight_at, psnr
from training.families.cyclegan.networks import ImagePool
from training.family import Step
from training.resolve import resolve

SMALL = CycleGANSettings(channels=4, blocks=1, discriminator_channels=4, pool_size=3)
SPEC = DataSpec(name="tints", channels=3, height=16, width=16, domains=("dark", "light"))


def small_networks(config: CycleGANSettings = SMALL, spec: DataSpec = SPEC, seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return FAMILY.networks(config, spec)


class Trainer:
    """Adam on every optimizer of the family, and a seeded generator for each step."""

    def __init__(self, config: CycleGANSettings, networks: nn.ModuleDict, steps: int) -> None:
        self.config, self.networks, self.steps = config, networks, steps
        self.adam = {
            name: torch.optim.Adam(
                [p for n in spec.networks for p in networks[n].parameters()], lr=spec.lr, betas=spec.betas
            )
            for name, spec in FAMILY.optimizers(config).items()
        }

    def update(self, name: str, loss: Tensor) -> None:
        optimizer = self.adam[name]
        optimizer.zero_grad()
        loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
        optimizer.step()

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        losses = FAMILY.step(
            Step(
                config=self.config,
                data=SPEC,
                networks=self.networks,
                batch=batch,
                step=step,
                steps=self.steps,
                update=self.update,
                generator=torch.Generator().manual_seed(step),
            )
        )
        return {name: float(value) for name, value in losses.items()}


def random_batch(seed: int, size: int = 16, rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 3, size, size)
    return Batch(
        images=torch.rand(shape, generator=generator) - 1, targets=torch.rand(shape, generator=generator)
    )


def test_the_family_is_found_by_its_name() -> None:
    assert resolve(FAMILIES, "cyclegan", "family") is FAMILY
    assert FAMILY.needs_pairs


def test_training_lowers_the_cycle_losses_and_moves_every_weight() -> None:
    networks = small_networks()
    before = {name: p.detach().clone() for name, p in networks.named_parameters()}
    trainer = Trainer(SMALL, networks, steps=40)
    losses = [trainer.step(i, random_batch(0)) for i in range(40)]
    assert losses[-1]["cycle_a"] < 0.8 * losses[0]["cycle_a"]
    assert losses[-1]["cycle_b"] < 0.8 * losses[0]["cycle_b"]
    still = [name for name, p in networks.named_parameters() if torch.equal(p, before[name])]
    assert still == []


def test_a_step_is_repeated_exactly_by_the_same_generator_and_state() -> None:
    config = dataclasses.replace(SMALL, cycle_noise=0.1)
    ends = []
    for _ in range(2):
        trainer = Trainer(config, small_networks(config), steps=4)
        for i in range(4):
            trainer.step(i, random_batch(i))
        ends.append(trainer.networks.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("both", [True, False])
def test_the_way_from_b_and_back_teaches_b_to_a_only_if_so_configured(both: bool) -> None:
    ends = []
    for weight in (0.0, 10.0):
        config = dataclasses.replace(SMALL, cycle_weight_b=weight, cycle_b_teaches_both=both)
        trainer = Trainer(config, small_networks(config), steps=2)
        trainer.step(0, random_batch(0))
        ends.append({role: trainer.networks[role].state_dict() for role in ("a_to_b", "b_to_a")})
    same = {
        role: all(torch.equal(ends[0][role][k], ends[1][role][k]) for k in ends[0][role]) for role in ends[0]
    }
    assert same == {"a_to_b": False, "b_to_a": not both}


def test_the_pool_shows_images_while_it_fills_and_then_past_ones_for_half_of_them() -> None:
    pool = ImagePool(10, (1, 1, 1))
    generator = torch.Generator().manual_seed(0)
    first = torch.arange(10.0).reshape(10, 1, 1, 1)
    assert torch.equal(pool(first, generator), first)
    past, new = set(range(10)), 0
    for i in range(10, 510):
        shown = int(pool(torch.full((1, 1, 1, 1), float(i)), generator))
        if shown == i:
            new += 1
        else:
            assert shown in past
            past.remove(shown)
            past.add(i)
    assert 200 < new < 300
    assert {int(x) for x in pool.images.flatten()} == past


def test_a_pool_from_a_checkpoint_goes_on_as_if_never_stopped() -> None:
    pool, other = ImagePool(3, (3, 4, 4)), ImagePool(3, (3, 4, 4))
    for i in range(3):
        pool(random_batch(i, size=4).images, torch.Generator().manual_seed(i))
    other.load_state_dict(pool.state_dict())
    images = random_batch(9, size=4).images
    shown = [p(images, torch.Generator().manual_seed(9)) for p in (pool, other)]
    assert torch.equal(*shown)
    assert not torch.equal(shown[0], images)


def test_a_pool_of_size_zero_shows_what_it_is_given() -> None:
    images = random_batch(0).images
    assert torch.equal(ImagePool(0, (3, 16, 16))(images, torch.Generator()), images)


def test_the_identity_weight_falls_linearly_to_zero() -> None:
    config = CycleGANSettings(identity_weight=2.0, identity_until=0.5)
    assert [identity_weight_at(config, p) for p in (0.0, 0.25, 0.5, 1.0)] == [2.0, 1.0, 0.0, 0.0]
    assert identity_weight_at(CycleGANSettings(identity_until=0.0), 0.0) == 0.0


def test_psnr_is_that_of_a_known_error() -> None:
    truth = torch.zeros(2, 3, 4, 4)
    images = truth + torch.tensor([0.2, 0.02]).reshape(2, 1, 1, 1)
    assert psnr(images, truth).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)


def test_evaluation_is_the_psnr_of_each_direction_to_its_own_truth() -> None:
    networks = small_networks().eval()
    batch = random_batch(0)
    translated = networks["a_to_b"](batch.images)
    figures = FAMILY.evaluate(
        SMALL, networks, SPEC, dataclasses.replace(batch, targets=translated.detach()), torch.Generator()
    )
    assert figures["psnr_a_to_b"] == pytest.approx(106.02, abs=0.01)
    assert 0 < figures["psnr_b_to_a"] < 20


def test_the_grid_shows_input_translation_and_truth_of_both_ways() -> None:
    data = open_data("shapes-stripes", count=48, held_out=48)
    spec = data.train.spec
    networks = small_networks(spec=spec).eval()
    images = FAMILY.sample(SMALL, networks, spec, 12, torch.Generator())
    pairs = data.held_out.batch(np.array([0, 24]), np.random.default_rng(0))
    rows = images.reshape(2, 6, 3, 32, 32)
    assert torch.equal(rows[:, 0], pairs.images)
    assert torch.equal(rows[:, 5], pairs.images)
    assert torch.equal(rows[:, 2], pairs.targets)
    assert torch.equal(rows[:, 3], pairs.targets)
    with torch.no_grad():
        torch.testing.assert_close(rows[:, 1], networks["a_to_b"](pairs.images))
        torch.testing.assert_close(rows[:, 4], networks["b_to_a"](pairs.targets))


def test_without_a_known_truth_the_way_back_is_measured_and_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("dark", "light"):
        (tmp_path / folder).mkdir()
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / folder / f"{i}.png")
    data = open_data(f"folders:{tmp_path / 'dark'},{tmp_path / 'light'}", size=16)
    spec = data.train.spec
    networks = small_networks(spec=spec).eval()
    figures = FAMILY.evaluate(SMALL, networks, spec, random_batch(0), torch.Generator())
    assert set(figures) == {"psnr_cycle_a", "psnr_cycle_b"}
    a, fake_b, back_a, b, fake_a, back_b = FAMILY.sample(SMALL, networks, spec, 6, torch.Generator())
    with torch.no_grad():
        torch.testing.assert_close(back_a, networks["b_to_a"](networks["a_to_b"](a[None]))[0])
        torch.testing.assert_close(back_b, networks["a_to_b"](networks["b_to_a"](b[None]))[0])
        torch.testing.assert_close(fake_a, networks["b_to_a"](b[None])[0])
    assert not torch.equal(fake_b, a)


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_every_exported_graph_equals_torch_at_any_size_its_strides_allow(norm: str, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, norm=norm)
    for graph in FAMILY.graphs(config, small_networks(config).eval(), SPEC):
        (tensor,) = graph.inputs
        path = tmp_path / f"{graph.role}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter, about itself
            torch.onnx.export(
                graph.module,
                (torch.zeros(2, 3, 16, 16),),
                path,
                dynamo=True,
                opset_version=20,
                external_data=False,
                input_names=["image"],
                output_names=["translated"],
                dynamic_shapes=(
                    {0: torch.export.Dim("rows"), 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},
                ),
            )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for rows, height, width in ((1, 16, 16), (3, 32, 32), (2, 20, 44), (5, 64, 8)):
            assert height % tensor.multiple_of == 0
            assert width % tensor.multiple_of == 0
            image = torch.rand(rows, 3, height, width) * 2 - 1
            with torch.no_grad():
                expected = graph.module(image).numpy()
            (translated,) = session.run(None, {"image": image.numpy()})
            assert translated.shape == image.shape
            np.testing.assert_allclose(translated, expected, atol=1e-4)


def test_sizes_that_the_strides_do_not_allow_are_refused_with_the_remedy() -> None:
    odd = dataclasses.replace(SPEC, width=18)
    with pytest.raises(ValueError, match=r"18×16.*multiples of 4.*lower cyclegan.halvings"):
        FAMILY.networks(SMALL, odd)
    tiny = dataclasses.replace(SPEC, height=8, width=8)
    with pytest.raises(ValueError, match=r"8×8.*discriminator_halvings = 2 of at least 12"):
        FAMILY.networks(SMALL, tiny)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"blocks": 0}, r"cyclegan.blocks must be at least 1, got 0"),
        ({"cycle_noise": -1.0}, r"cyclegan.cycle_noise must not be negative, got -1.0"),
        ({"pool_size": -1}, r"cyclegan.pool_size must be 0 or more, got 2 and -1"),
        ({"norm": "batch"}, r"cyclegan.norm 'batch' is not one of instance, none"),
    ],
)
def test_impossible_settings_are_refused_by_name(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CycleGANSettings(**setting)

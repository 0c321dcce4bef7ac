"""Reflow: pairs of a teacher's own, and a student that lands on them in one step."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training import checkpoint
from training.data import DataSpec
from training.families import diffusion
from training.families.diffusion.sampling import denoiser, euler, sampling_sigmas, start
from training.families.diffusion.settings import DiffusionSettings
from training.families.reflow import FAMILY, ReflowSettings, draw_pairs, reflow_loss
from training.family import Step

DATA = DataSpec(name="digits", channels=1, height=8, width=8, class_labels=("a", "b", "c"), levels=17)
SHAPE = {"channels": 16, "multipliers": (1, 2), "blocks": 1}


def settings(**values: object) -> ReflowSettings:
    return ReflowSettings(**{**SHAPE, "pairs": 7, "pairs_steps": 2, **values})


def networks_of(config: DiffusionSettings) -> nn.ModuleDict:
    torch.manual_seed(3)
    networks = diffusion.networks(config, DATA)
    for parameter in networks.parameters():
        nn.init.normal_(parameter, std=0.15)
    return networks.eval()


def teacher_run(folder: Path, **values: object) -> Path:
    """The checkpoint of a run of family diffusion with random weights, as the loop writes it."""
    config = DiffusionSettings(**{**SHAPE, **values})
    tensors = networks_of(config).state_dict()
    checkpoint.save(
        folder,
        1,
        {"networks": tensors, "averages": tensors, "optimizers": {}},
        {
            "family": "diffusion",
            "config": {"data": "digits", "diffusion": json.loads(json.dumps(dataclasses.asdict(config)))},
            "data": DATA,
            "seed": 0,
            "cpu_seconds": 0.0,
            "seconds": 0.0,
            "scaler": {},
            "curve": [],
        },
    )
    return folder


def test_a_pair_is_noise_and_the_image_that_the_flow_carries_it_to() -> None:
    class Shift(nn.Module):
        """The flow of velocity 0.25 everywhere, from t = 0.999 to 0."""

        def forward(self, x: Tensor, noise_level: Tensor, class_id: Tensor | None = None) -> Tensor:
            return torch.full_like(x, 0.25)

    pairs = draw_pairs(settings(pairs=5), Shift(), DATA, rows=2)
    batch = pairs.batch(np.array([4, 0]), np.random.default_rng(0))
    assert len(pairs) == 5
    assert batch.labels.tolist() == [1, 0]
    torch.testing.assert_close(batch.images, batch.targets - 0.999 * 0.25, atol=1e-4, rtol=0)


def test_pairs_are_a_function_of_their_seed_and_not_of_how_they_are_batched() -> None:
    unet = networks_of(settings())["unet"]
    first, again = draw_pairs(settings(), unet, DATA), draw_pairs(settings(), unet, DATA, rows=3)
    other = draw_pairs(settings(pairs_seed=1), unet, DATA)
    torch.testing.assert_close(first.images, again.images, atol=1e-4, rtol=1e-4)
    assert (first.noise == again.noise).all()
    assert not (first.noise == other.noise).any()


def test_the_student_begins_as_its_teacher(tmp_path: Path) -> None:
    config = settings(teacher=str(teacher_run(tmp_path / "teacher")))
    student = diffusion.networks(config, DATA)
    pairs = FAMILY.prepare(config, student, DATA)
    teacher = networks_of(config)
    assert pairs.spec == DATA
    assert len(pairs) == 7
    for name, tensor in teacher.state_dict().items():
        assert (student.state_dict()[name] == tensor).all()


def test_updates_straighten_the_flow_until_one_step_lands_on_the_image(tmp_path: Path) -> None:
    config = settings(teacher=str(teacher_run(tmp_path / "teacher")), pairs=16, one_call=1.0, lr=3e-3)
    student = diffusion.networks(config, DATA)
    pairs = FAMILY.prepare(config, student, DATA)
    batch = pairs.batch(np.arange(16), np.random.default_rng(0))
    optimizer = torch.optim.Adam(student.parameters(), config.lr)

    def update(name: str, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def one_step_error(unet: nn.Module) -> float:
        sigmas = sampling_sigmas(config, 1)
        denoise = denoiser(config, unet, batch.labels[:, None], 3, 1.0)
        x = start(config, batch.targets, sigmas[0])
        return (euler(denoise, x, sigmas) - batch.images).square().mean().item()

    before = one_step_error(copy.deepcopy(student["unet"]))
    for i in range(40):
        FAMILY.step(
            Step(
                config=config,
                data=DATA,
                networks=student,
                batch=batch,
                step=i,
                steps=40,
                update=update,
                generator=torch.Generator().manual_seed(i),
            )
        )
    assert one_step_error(student["unet"]) < 0.5 * before


def test_the_loss_of_a_straight_flow_is_zero() -> None:
    noise, images = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)

    class Straight(nn.Module):
        """The flow that carries these noises straight to these images."""

        def forward(self, x: Tensor, noise_level: Tensor, class_id: Tensor | None = None) -> Tensor:
            return noise - images

    generator = torch.Generator().manual_seed(0)
    assert reflow_loss(settings(one_call=0.5), Straight(), noise, images, None, generator) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prediction": "edm"}, "prediction 'edm' cannot be straightened"),
        ({"pairs": 0}, "pairs 0 and pairs_steps 2 must be at least 1"),
        ({"one_call": 1.5}, "one_call is a share of rows"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**values)


def test_without_a_teacher_the_remedy_is_named() -> None:
    config = settings()
    with pytest.raises(ValueError, match=r"set reflow\.teacher"):
        FAMILY.prepare(config, diffusion.networks(config, DATA), DATA)


def test_a_teacher_that_is_no_flow_is_refused(tmp_path: Path) -> None:
    config = settings(teacher=str(teacher_run(tmp_path / "teacher", prediction="v")))
    with pytest.raises(ValueError, match=r"predicts v: train one with diffusion\.prediction=flow"):
        FAMILY.prepare(config, diffusion.networks(config, DATA), DATA)


def test_a_student_of_another_shape_is_refused(tmp_path: Path) -> None:
    config = settings(teacher=str(teacher_run(tmp_path / "teacher")), channels=24)
    with pytest.raises(checkpoint.CheckpointError, match="do not fit the configured networks"):
        FAMILY.prepare(config, diffusion.networks(config, DATA), DATA)


def test_the_exported_default_is_one_euler_step() -> None:
    config = settings()
    sampling = FAMILY.graphs(config, diffusion.networks(config, DATA), DATA)[0].sampling
    assert (sampling["sampler"], sampling["steps"], sampling["distilled"]) == ("euler", 1, True)

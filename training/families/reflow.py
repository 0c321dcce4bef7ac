"""Rectified flow straightened until one call is enough (Liu et al. 2023, arXiv:2209.03003).

A trained flow carries each noise n to an image x0. Trained anew on these pairs, the flow becomes straight,
and one Euler step from the noise lands on the image. Learning x0 from n at t = 1 alone is what the paper
calls distillation; `one_call` is the share of rows that does so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from training import checkpoint
from training.data import Batch, DataSpec
from training.families import diffusion
from training.families.diffusion.graphs import diffusion_graphs
from training.families.diffusion.loss import draw_sigma, drop_labels, gaussian
from training.families.diffusion.sampling import denoiser, heun, sampling_sigmas, start
from training.families.diffusion.settings import DiffusionSettings, Sampler
from training.family import Family, Graph, Step
from training.preconditioning import SCALINGS, noise_level


@dataclass(frozen=True, kw_only=True)
class ReflowSettings(DiffusionSettings):
    """A straightened flow. The settings of the network must be those of the teacher."""

    teacher: str = ""
    """Folder of the run, or of the checkpoint, of a flow of family diffusion."""
    pairs: int = 4000
    """Pairs of noise and image to draw from the teacher, the classes in turn."""
    pairs_seed: int = 0
    """Seed of the pairs' noise."""
    pairs_steps: int = 9
    """Steps of Heun's method for each pair."""
    pairs_guidance: float = 1.0
    """Scale of classifier-free guidance in the pairs; the student needs none afterwards."""
    one_call: float = 0.75
    """Share of rows trained at t = 1; the others keep the flow usable with more steps."""
    huber: float = 0.03
    """Constant c of the pseudo-Huber loss (Song and Dhariwal 2024), for each value of an image."""

    label_dropout: float = 0.0
    """Share of rows trained without their class."""
    sampler: Sampler = "euler"
    """Default sampler of the exported model."""
    sample_steps: int = 1
    """Default number of sampling steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction != "flow":
            raise ValueError(f"prediction {self.prediction!r} cannot be straightened: only a flow can")
        if self.pairs < 1 or self.pairs_steps < 1:
            raise ValueError(f"pairs {self.pairs} and pairs_steps {self.pairs_steps} must be at least 1")
        if not 0 <= self.one_call <= 1:
            raise ValueError(f"one_call is a share of rows, between 0 and 1, got {self.one_call}")


class Pairs:
    """Images that a teacher made, with the noise that each was made from as its target."""

    def __init__(self, spec: DataSpec, images: Tensor, noise: Tensor, labels: Tensor | None) -> None:
        self.spec, self.images, self.noise, self.labels = spec, images, noise, labels

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The pairs at these indices."""
        at = torch.from_numpy(indices)
        labels = None if self.labels is None else self.labels[at]
        return Batch(images=self.images[at], labels=labels, targets=self.noise[at])


def prepare(config: ReflowSettings, networks: nn.ModuleDict, data: DataSpec) -> Pairs:
    """Give the networks the teacher's averaged weights, and draw the pairs from it."""
    if not config.teacher:
        raise ValueError(
            "reflow has no teacher: set reflow.teacher to the folder of a run of family diffusion"
        )
    teacher = checkpoint.load(config.teacher, expect_family="diffusion")
    if teacher.config.settings.prediction != "flow":
        raise ValueError(
            f"the teacher {config.teacher} predicts {teacher.config.settings.prediction}: train one with "
            f"diffusion.prediction=flow"
        )
    averaged = teacher.averaged_networks()
    checkpoint.load_into(networks, averaged.state_dict(), teacher.path)
    return draw_pairs(config, averaged["unet"], data)


@torch.no_grad()
def draw_pairs(config: ReflowSettings, unet: nn.Module, data: DataSpec, rows: int = 250) -> Pairs:
    """Pairs of noise and the image that the flow carries it to, a function of `pairs_seed` alone."""
    generator = torch.Generator().manual_seed(config.pairs_seed)
    noise = gaussian((config.pairs, data.channels, data.height, data.width), generator)
    labels = torch.arange(config.pairs) % len(data.class_labels) if data.class_labels else None
    sigmas = sampling_sigmas(config, config.pairs_steps)
    images = []
    for begin in track(range(0, config.pairs, rows), "drawing pairs", console=Console(stderr=True)):
        class_id = None if labels is None else labels[begin : begin + rows, None]
        denoise = denoiser(config, unet, class_id, len(data.class_labels), config.pairs_guidance)
        images.append(heun(denoise, start(config, noise[begin : begin + rows], sigmas[0]), sigmas))
    return Pairs(data, torch.cat(images), noise, labels)


def reflow_loss(
    config: ReflowSettings,
    unet: nn.Module,
    noise: Tensor,
    images: Tensor,
    class_id: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """Pseudo-Huber distance of the velocity to n - x0, on the straight line between a pair's two ends."""
    rows = len(images)
    at_noise = torch.rand((rows, 1, 1, 1), generator=generator, device=generator.device) < config.one_call
    sigma = torch.where(at_noise, config.sigma_range[1], draw_sigma(config, rows, generator))
    at_noise, sigma = at_noise.to(images.device), sigma.to(images.device)
    c_in = SCALINGS["flow"](sigma, config.sigma_data).c_in
    fed = torch.where(at_noise, noise, c_in * (images + sigma * noise))
    level = noise_level("flow", sigma[:, :, 0, 0], config.timesteps)
    velocity: Tensor = unet(fed, level, class_id).float()
    distance = (velocity - (noise - images)).square().mean(dim=(1, 2, 3))
    return ((distance + config.huber**2).sqrt() - config.huber).mean()


def step(step: Step) -> Mapping[str, Tensor]:
    """One update of the U-Net on pairs."""
    config, batch, null = step.config, step.batch, len(step.data.class_labels)
    assert batch.targets is not None, "`prepare` gives pairs"
    class_id = drop_labels(diffusion.class_ids(batch, step.data), null, config.label_dropout, step.generator)
    loss = reflow_loss(config, step.networks["unet"], batch.targets, batch.images, class_id, step.generator)
    step.update("unet", loss)
    return {"loss": loss.detach()}


def graphs(config: ReflowSettings, networks: nn.ModuleDict, data: DataSpec) -> Sequence[Graph]:
    """The graphs of a diffusion model, with the word that its denoised image is the end of the flow."""
    return [
        replace(graph, sampling={**graph.sampling, "distilled": True}) if graph.sampling else graph
        for graph in diffusion_graphs(config, networks, data)
    ]


FAMILY = Family(
    name="reflow",
    config=ReflowSettings,
    tasks=("generate",),
    networks=diffusion.networks,
    optimizers=diffusion.optimizers,
    step=step,
    averaged=("unet",),
    sample=diffusion.sample,
    graphs=graphs,
    prepare=prepare,
    metadata={"paper": "Liu et al. 2023, Flow Straight and Fast (arXiv:2209.03003)"},
)

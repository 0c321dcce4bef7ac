"""What a diffusion model exports: its denoiser, and for images to be enlarged a decoder that does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from training.data import DataSpec
from training.families.diffusion.settings import DiffusionSettings
from training.family import Graph, GraphTensor
from training.layers import Enlarge


def diffusion_graphs(config: DiffusionSettings, networks: nn.ModuleDict, data: DataSpec) -> Sequence[Graph]:
    """The graphs of a diffusion model."""
    shape = (data.channels, data.height, data.width)
    inputs = [GraphTensor(name="x", shape=shape), GraphTensor(name="noise_level", shape=(1,))]
    if data.class_labels:
        classes = len(data.class_labels) + 1
        inputs.append(GraphTensor(name="class_id", shape=(1,), dtype=torch.int64, high=classes))
    graphs = [
        Graph(
            role="denoiser",
            module=networks["unet"].eval(),
            inputs=tuple(inputs),
            outputs=(GraphTensor(name="prediction", shape=shape),),
            sampling=sampling(config),
        )
    ]
    if data.enlarge > 1:
        large = (data.channels, data.height * data.enlarge, data.width * data.enlarge)
        graphs.append(
            Graph(
                role="decoder",
                module=Enlarge(data.enlarge).eval(),
                inputs=(GraphTensor(name="latent", shape=shape),),
                outputs=(GraphTensor(name="sample", shape=large),),
            )
        )
    return graphs


def sampling(config: DiffusionSettings) -> dict[str, Any]:
    """How to sample from the denoiser, in the words of the manifest."""
    low, high = config.sigma_range
    return {
        "parameterization": {"prediction": config.prediction, "sigma_data": config.sigma_data},
        "schedule": {
            "kind": config.schedule,
            "sigma_min": low,
            "sigma_max": high,
            "rho": config.rho,
            "timesteps": config.timesteps,
        },
        "sampler": config.sampler,
        "steps": config.sample_steps,
        "guidance_scale": config.guidance_scale,
        "guidance_interval": config.guidance_interval,
        "clip_denoised": config.clip_denoised,
    }

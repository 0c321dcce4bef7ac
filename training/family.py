"""What a family of models must say of itself, and nothing of how it is trained or exported.

A family is one file in `training/families/` that ends in `FAMILY = Family(...)`, and one line in
`FAMILIES`. The loop in `training/loop.py` owns devices, precision, data, checkpoints, averages and
progress; a family owns its networks, its losses and the order of its updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training.data import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one update is given. `family.step` reads it, updates the networks and returns its losses."""

    config: Any
    """The family's own configuration, an instance of `Family.config`."""
    data: DataSpec
    """What the data are."""
    networks: nn.ModuleDict
    """The networks by name, set up on their device."""
    batch: Batch
    """Real images of this step, on the device, already augmented if so configured."""
    step: int
    """Number of this update, from 0."""
    steps: int
    """Number of updates in the whole run."""
    update: Callable[[str, Tensor], None]
    """`update("generator", loss)`: back-propagate the loss into that optimizer's networks and step it.
    Gradients are cleared before; precision, scaling, clipping, several devices and the learning rate
    are the loop's affair."""
    generator: torch.Generator
    """Random numbers of this step alone, a function of (seed, step, rank): use it for every draw."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """An optimizer over some of the networks."""

    networks: tuple[str, ...]
    """Names of the networks whose parameters it updates."""
    lr: float
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's coefficients."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    clip_norm: float | None = None
    """Gradient norm above which gradients are scaled down."""


@dataclass(frozen=True, kw_only=True)
class GraphTensor:
    """A tensor of a graph to export, in the words of `serving.manifest` (which training never imports)."""

    name: str
    """Name, by the conventions of the manifest: latent, noise, class_id, image, x, noise_level, sample."""
    shape: tuple[int, ...]
    """Shape of a row; -1 is a dynamic axis."""
    dtype: torch.dtype = torch.float32
    """float32, or int64 for class ids."""
    multiple_of: int = 1
    """What every dynamic axis must be divisible by."""
    high: int | None = None
    """For int64: draws for the parity check are below it."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One graph to export: a module in eval mode whose `forward` takes the inputs in order."""

    role: str
    """generator, decoder, encoder, denoiser, or a direction such as a_to_b."""
    module: nn.Module
    """Takes the inputs in order as positional tensors [rows, ...]; returns a tensor or a tuple of them."""
    inputs: tuple[GraphTensor, ...]
    """Inputs in the order of `forward`."""
    outputs: tuple[GraphTensor, ...]
    """Outputs in the order of what `forward` returns."""
    sampling: Mapping[str, Any] | None = None
    """For a denoiser: the fields of `serving.manifest.Sampling` as plain values, with `parameterization` and
    `schedule` as mappings."""


class SampleFunction(Protocol):
    """Draws images from averaged networks for the grid that a run shows of itself."""

    def __call__(
        self, config: Any, networks: nn.ModuleDict, data: DataSpec, count: int, generator: torch.Generator
    ) -> Tensor:
        """Images [count, channels, height, width] in [-1, 1], the classes in turn where there are any."""


class EvaluateFunction(Protocol):
    """Measures averaged networks on held-out images, for the curve (ELBO in bits/dim, held-out loss)."""

    def __call__(
        self, config: Any, networks: nn.ModuleDict, data: DataSpec, batch: Batch, generator: torch.Generator
    ) -> Mapping[str, float]:
        """Figures by name."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models."""

    name: str
    """Name on the command line and in manifests."""
    config: type
    """Frozen dataclass of the family's settings, every field with a default and a docstring."""
    tasks: tuple[str, ...]
    """Tasks of the public model: generate, translate, encode, decode, ..."""
    networks: Callable[[Any, DataSpec], nn.ModuleDict]
    """Builds the networks, initialised under the global seed. State such as an image pool is a module with
    buffers here, so that checkpoints hold it."""
    optimizers: Callable[[Any], Mapping[str, OptimizerSpec]]
    """The optimizers by name."""
    step: Callable[[Step], Mapping[str, Tensor]]
    """One update of everything; returns the losses to show, by name, detached."""
    averaged: tuple[str, ...]
    """Networks of which an exponential moving average is kept, sampled and exported."""
    sample: SampleFunction
    """Draws the grid."""
    graphs: Callable[[Any, nn.ModuleDict, DataSpec], Sequence[Graph]]
    """The graphs to export, from averaged networks."""
    evaluate: EvaluateFunction | None = None
    """Held-out figures, where the family has some."""
    needs_pairs: bool = False
    """Whether a batch must have `targets`, images of a second domain."""
    prepare: Callable[[Any, nn.ModuleDict, DataSpec], Any] | None = None
    """Called once on new networks before training: load a teacher, draw pairs; returns replacement data
    (an `ImageData`) or None."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the manifest should say of it: paper, licence."""

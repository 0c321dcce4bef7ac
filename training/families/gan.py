"""Generative adversarial network with the R3GAN loss: relativistic pairing with zero-centred gradient
penalties on real and on generated images (Huang et al. 2024, arXiv:2501.05441).

Code (paper): `generator` (G), `discriminator` (D), `latent` (z), `gamma` (γ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data import DataSpec
from training.data.augment import DIFFERENTIABLE, differentiable_augment
from training.family import Family, Graph, GraphTensor, OptimizerSpec, Step
from training.layers import ClassCode, Enlarge
from training.pyramid import Analysis, Pyramid, Synthesis


@dataclass(frozen=True, kw_only=True)
class GANSettings:
    """Settings of the networks, the loss and the optimizers."""

    loss: Literal["r3gan", "hinge", "wasserstein"] = "r3gan"
    """Relativistic pairing with R1 and R2, hinge with R1 and R2, or Wasserstein with gradient penalty."""
    gamma: float = 0.2
    """Weight of the gradient penalty: γ of R1 and R2, λ (10 in the paper) of Wasserstein."""
    latent_dim: int = 64
    """Length of the latent vector."""
    channels: int = 32
    """Feature maps of the generator at full size; they double with every halving."""
    discriminator_channels: int = 32
    """Feature maps of the discriminator at full size; they double with every halving."""
    max_channels: int = 256
    """Most feature maps at any size."""
    blocks: int = 1
    """Residual blocks at each size."""
    discriminator_norm: bool = False
    """Whether the discriminator has group normalisation; R3GAN does without, and so needs less time."""
    augment: tuple[str, ...] = ()
    """Differentiable augmentations of all that the discriminator sees (Zhao et al. 2020): flip, shift,
    colour, cutout."""
    augment_probability: float = 1.0
    """Share of the images that each augmentation changes."""
    conditional: bool = True
    """Whether both networks are told the class, where the data have classes."""
    lr: float = 1e-3
    """Peak learning rate of both networks."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's coefficients."""

    def __post_init__(self) -> None:
        for name in ("latent_dim", "channels", "discriminator_channels", "max_channels", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"gan.{name} must be at least 1, got {getattr(self, name)}")
        if self.loss not in LOSSES:
            raise ValueError(f"gan.loss {self.loss!r} is not one of {', '.join(LOSSES)}")
        if self.gamma < 0:
            raise ValueError(f"gan.gamma must be 0 or more, got {self.gamma}")
        if self.lr <= 0:
            raise ValueError(f"gan.lr must be above 0, got {self.lr}")
        if not 0 <= self.augment_probability <= 1:
            raise ValueError(f"gan.augment_probability must be in [0, 1], got {self.augment_probability}")
        for name in self.augment:
            if name not in DIFFERENTIABLE:
                raise ValueError(f"gan.augment {name!r} is not one of {', '.join(DIFFERENTIABLE)}")


class Generator(nn.Module):
    """Latents [n, latent_dim] and class ids [n] to images [n, c, h, w] in (-1, 1)."""

    def __init__(self, config: GANSettings, data: DataSpec) -> None:
        super().__init__()
        self.code = ClassCode(_classes(config, data))
        self.synthesis = Synthesis(
            _pyramid(config, data, config.channels),
            code_dim=config.latent_dim + self.code.dim,
            image_channels=data.channels,
            blocks=config.blocks,
        )

    def forward(self, latent: Tensor, class_id: Tensor | None = None) -> Tensor:
        return torch.tanh(self.synthesis(self.code(latent, class_id))).float()


class Discriminator(nn.Module):
    """Images [n, c, h, w] and class ids [n] to logits [n], higher for real: the image's features along the
    direction of its class (Miyato and Koyama 2018), or along a single one without classes."""

    def __init__(self, config: GANSettings, data: DataSpec, features: int = 64) -> None:
        super().__init__()
        classes = _classes(config, data)
        self.table = nn.Embedding(max(classes, 1), features)
        self.unconditional = not classes
        self.analysis = Analysis(
            _pyramid(config, data, config.discriminator_channels),
            image_channels=data.channels,
            out_dim=features,
            blocks=config.blocks,
            normalised=config.discriminator_norm,
        )

    def forward(self, images: Tensor, class_id: Tensor | None = None) -> Tensor:
        features = self.analysis(images).float()
        directions = self.table.weight if self.unconditional else self.table(class_id)
        logits: Tensor = (features * directions).sum(1) / math.sqrt(features.shape[1])
        return logits


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the discriminator was shown, and what it made of it."""

    discriminator: Callable[[Tensor, Tensor | None], Tensor]
    """D."""
    images: Tensor
    """Real images and, behind them, as many generated ones, [2 n, c, h, w]; they require gradients."""
    logits: Tensor
    """D(images), [2 n]."""
    labels: Tensor | None
    """Classes of either half, [n]."""
    generator: torch.Generator
    """Random numbers."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The two players' losses on logits [n] of real and generated images, and a penalty on gradients."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real logits, fake logits) to the discriminator's loss."""
    generator: Callable[[Tensor, Tensor], Tensor]
    """(real logits, fake logits) to the generator's loss."""
    penalty: Callable[[Seen], Tensor]
    """The penalty on the discriminator's gradients, before its weight gamma."""


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-f(D(x) - D(G(z))) with f(t) = -log(1 + e^-t), a real and a generated image compared in pairs."""
    return F.softplus(fake - real).mean()


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """-f(D(G(z)) - D(x)): the discriminator's loss with the roles exchanged."""
    return F.softplus(real - fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) (Lim and Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """D(G(z)) - D(x) (Arjovsky et al. 2017)."""
    return fake.mean() - real.mean()


def fooling_generator(real: Tensor, fake: Tensor) -> Tensor:
    """-D(G(z)); real images have no part in it."""
    return -fake.mean()


def r1_and_r2(seen: Seen) -> Tensor:
    """(|∇D(x)|² + |∇D(G(z))|²) / 2, whose weight is γ: the mean over real and generated images together."""
    return gradient(seen.logits, seen.images).square().sum(1).mean()


def unit_gradient(seen: Seen) -> Tensor:
    """(|∇D(x̂)| - 1)² at random points x̂ between real and generated images (Gulrajani et al. 2017)."""
    real, fake = seen.images.detach().chunk(2)
    u = torch.rand(len(real), 1, 1, 1, generator=seen.generator, device=real.device)
    between = torch.lerp(real, fake, u).requires_grad_()
    lengths = gradient(seen.discriminator(between, seen.labels), between).norm(dim=1)
    penalty: Tensor = (lengths - 1).square().mean()
    return penalty


def gradient(logits: Tensor, images: Tensor) -> Tensor:
    """∇ logits at each image, [n, pixels], itself differentiable."""
    result: Tensor = torch.autograd.grad(logits.sum(), images, create_graph=True)[0]
    return result.flatten(1)


LOSSES: dict[str, Loss] = {
    "r3gan": Loss(
        discriminator=relativistic_discriminator, generator=relativistic_generator, penalty=r1_and_r2
    ),
    "hinge": Loss(discriminator=hinge_discriminator, generator=fooling_generator, penalty=r1_and_r2),
    "wasserstein": Loss(
        discriminator=wasserstein_discriminator, generator=fooling_generator, penalty=unit_gradient
    ),
}
"""Losses by name."""


def step(step: Step) -> Mapping[str, Tensor]:
    """One update of the discriminator, then one of the generator against it."""
    config: GANSettings = step.config
    G, D, loss = step.networks["generator"], step.networks["discriminator"], LOSSES[config.loss]
    labels = step.batch.labels

    def generated() -> Tensor:
        shape = (len(step.batch.images), config.latent_dim)
        images: Tensor = G(torch.randn(shape, generator=step.generator, device=step.generator.device), labels)
        return images

    def shown(images: Tensor) -> Tensor:
        return differentiable_augment(images, config.augment, step.generator, config.augment_probability)

    with torch.no_grad():
        images = torch.cat([shown(step.batch.images), shown(generated())])
    images.requires_grad_()
    logits = D(images, None if labels is None else labels.repeat(2))
    seen = Seen(discriminator=D, images=images, logits=logits, labels=labels, generator=step.generator)
    d_loss, penalty = loss.discriminator(*logits.chunk(2)), loss.penalty(seen)
    step.update("discriminator", d_loss + config.gamma * penalty)

    with torch.no_grad():
        real_logits = D(shown(step.batch.images), labels)
    g_loss = loss.generator(real_logits, D(shown(generated()), labels))
    step.update("generator", g_loss)
    return {"discriminator": d_loss.detach(), "generator": g_loss.detach(), "penalty": penalty.detach()}


def networks(config: GANSettings, data: DataSpec) -> nn.ModuleDict:
    """Generator and discriminator."""
    return nn.ModuleDict({"generator": Generator(config, data), "discriminator": Discriminator(config, data)})


def optimizers(config: GANSettings) -> Mapping[str, OptimizerSpec]:
    """One for each player."""
    return {
        name: OptimizerSpec(networks=(name,), lr=config.lr, betas=config.betas)
        for name in ("generator", "discriminator")
    }


class GeneratorGraph(nn.Module):
    """Latents and classes to pictures at the size at which they are shown. A latent scaled by less than one
    truncates: less variety, fewer failures."""

    def __init__(self, generator: nn.Module, *, enlarge: int) -> None:
        super().__init__()
        self.generator = generator
        self.enlarge = Enlarge(enlarge)

    def forward(self, latent: Tensor, class_id: Tensor | None = None) -> Tensor:
        images = self.generator(latent, None if class_id is None else class_id[:, 0])
        enlarged: Tensor = self.enlarge(images)
        return enlarged


def sample(
    config: GANSettings, networks: nn.ModuleDict, data: DataSpec, count: int, generator: torch.Generator
) -> Tensor:
    """Images of untruncated latents, the classes in turn."""
    device, classes = generator.device, _classes(config, data)
    latent = torch.randn(count, config.latent_dim, generator=generator, device=device)
    class_id = torch.arange(count, device=device) % classes if classes else None
    with torch.no_grad():
        images: Tensor = networks["generator"](latent, class_id)
    return images


def graphs(config: GANSettings, networks: nn.ModuleDict, data: DataSpec) -> Sequence[Graph]:
    """The generator."""
    classes = _classes(config, data)
    class_id = (GraphTensor(name="class_id", shape=(1,), dtype=torch.int64, high=classes),) if classes else ()
    shown = (data.channels, data.height * data.enlarge, data.width * data.enlarge)
    graph = Graph(
        role="generator",
        module=GeneratorGraph(networks["generator"], enlarge=data.enlarge),
        inputs=(GraphTensor(name="latent", shape=(config.latent_dim,)), *class_id),
        outputs=(GraphTensor(name="sample", shape=shown),),
    )
    return (graph,)


def _pyramid(config: GANSettings, data: DataSpec, channels: int) -> Pyramid:
    return Pyramid(height=data.height, width=data.width, channels=channels, max_channels=config.max_channels)


def _classes(config: GANSettings, data: DataSpec) -> int:
    return len(data.class_labels) if config.conditional else 0


FAMILY = Family(
    name="gan",
    config=GANSettings,
    tasks=("generate",),
    networks=networks,
    optimizers=optimizers,
    step=step,
    averaged=("generator",),
    sample=sample,
    graphs=graphs,
    metadata={"paper": "Huang et al. 2024, arXiv:2501.05441"},
)
"""Generative adversarial networks."""

"""Variational autoencoder, conditional where there are classes (Kingma and Welling 2014, arXiv:1312.6114).

The decoder gives the mean of a Gaussian over the pixels; its standard deviation sigma is fixed or learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data import Batch, DataSpec
from training.family import Family, Graph, GraphTensor, OptimizerSpec, Step
from training.layers import ClassCode, Enlarge, Shrink
from training.likelihood import gaussian_log_density, kl_divergence, level_log_probability
from training.pyramid import Analysis, Pyramid, Synthesis

MLP_PIXELS = 16 * 16


@dataclass(frozen=True, kw_only=True)
class VAESettings:
    """Settings of the networks, the bound and the optimizer."""

    architecture: Literal["auto", "mlp", "conv"] = "auto"
    """Dense or convolutional networks; auto: dense up to 16×16 pixels."""
    latent_dim: int = 16
    """Length of the latent vector."""
    hidden: int = 512
    """Width of the dense layers."""
    channels: int = 32
    """Feature maps at full size, for `conv`; they double with every halving."""
    max_channels: int = 256
    """Most feature maps, for `conv`."""
    blocks: int = 1
    """Residual blocks at each size, for `conv`."""
    conditional: bool = True
    """Whether encoder and decoder are told the class, where the data have classes."""
    beta: float = 1.0
    """Weight of the rate (Higgins et al. 2017); 1 is the evidence lower bound."""
    free_bits: float = 0.0
    """Bits of each latent dimension that the rate does not charge for (Kingma et al. 2016)."""
    sigma: float = 0.5
    """Standard deviation of the pixels around the decoder's mean; where learned, at the start."""
    learn_sigma: bool = False
    """Whether sigma is learned, one for all pixels (Rybkin et al. 2021)."""
    decoder_noise: float = 0.0
    """Standard deviation of the noise that is added to the decoder's mean when sampling. At `sigma` it
    samples the model as it stands; less shows what the latent has decided."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip_norm: float | None = None
    """Gradient norm above which gradients are scaled down."""

    def __post_init__(self) -> None:
        for name in ("latent_dim", "hidden", "channels", "max_channels", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"vae.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("sigma", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"vae.{name} must be above 0, got {getattr(self, name)}")
        for name in ("beta", "free_bits", "decoder_noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"vae.{name} must be 0 or more, got {getattr(self, name)}")


class Encoder(nn.Module):
    """q(latent | image, class): images [n, c, h, w] to mean and log variance, each [n, latent_dim]."""

    def __init__(self, config: VAESettings, data: DataSpec) -> None:
        super().__init__()
        hidden = config.hidden
        self.body: nn.Module
        if _architecture(config, data) == "conv":
            self.body = Analysis(
                _pyramid(config, data), image_channels=data.channels, out_dim=hidden, blocks=config.blocks
            )
        else:
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(_pixels(data), hidden))
        self.code = ClassCode(_classes(config, data))
        self.head = nn.Sequential(
            nn.Linear(hidden + self.code.dim, hidden), nn.SiLU(), nn.Linear(hidden, 2 * config.latent_dim)
        )

    def forward(self, images: Tensor, class_id: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = F.silu(self.body(images))
        mean, log_variance = self.head(self.code(features, class_id)).chunk(2, dim=1)
        return mean.float(), log_variance.float()


class Decoder(nn.Module):
    """p(image | latent, class): latents [n, latent_dim] to the mean [n, c, h, w] and log sigma []."""

    def __init__(self, config: VAESettings, data: DataSpec) -> None:
        super().__init__()
        hidden = config.hidden
        self.code = ClassCode(_classes(config, data))
        code_dim = config.latent_dim + self.code.dim
        self.body: nn.Module
        if _architecture(config, data) == "conv":
            self.body = Synthesis(
                _pyramid(config, data), code_dim=code_dim, image_channels=data.channels, blocks=config.blocks
            )
        else:
            self.body = nn.Sequential(
                nn.Linear(code_dim, hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, _pixels(data)),
                nn.Unflatten(1, (data.channels, data.height, data.width)),
            )
        self.log_sigma = nn.Parameter(torch.tensor(math.log(config.sigma)), requires_grad=config.learn_sigma)

    def forward(self, latent: Tensor, class_id: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.body(self.code(latent, class_id)).float(), self.log_sigma


def networks(config: VAESettings, data: DataSpec) -> nn.ModuleDict:
    """Encoder and decoder."""
    return nn.ModuleDict({"encoder": Encoder(config, data), "decoder": Decoder(config, data)})


def optimizers(config: VAESettings) -> Mapping[str, OptimizerSpec]:
    """One for both networks."""
    spec = OptimizerSpec(
        networks=("encoder", "decoder"),
        lr=config.lr,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
    return {"vae": spec}


def step(step: Step) -> Mapping[str, Tensor]:
    """Raises the evidence lower bound, with its rate weighted by beta and free up to some bits."""
    config: VAESettings = step.config
    mean, log_variance, image_mean, log_sigma = _autoencode(step.networks, step.batch, step.generator)
    distortion = -gaussian_log_density(step.batch.images, image_mean, log_sigma).flatten(1).sum(1).mean()
    rate = kl_divergence(mean, log_variance).mean(0)
    charged = rate.clamp(min=config.free_bits * math.log(2)).sum()
    loss = distortion + config.beta * charged
    step.update("vae", loss)
    error = F.mse_loss(image_mean.detach(), step.batch.images)
    return {"loss": loss.detach(), "rate_nats": rate.sum().detach(), "squared_error": error}


def evaluate(
    config: VAESettings, networks: nn.ModuleDict, data: DataSpec, batch: Batch, generator: torch.Generator
) -> Mapping[str, float]:
    """The negative evidence lower bound of held-out images in bits per dimension, and its rate."""
    with torch.no_grad():
        mean, log_variance, image_mean, log_sigma = _autoencode(networks, batch, generator)
        distortion = (
            -level_log_probability(batch.images, image_mean, log_sigma, data.levels).flatten(1).sum(1)
        )
        rate = kl_divergence(mean, log_variance).sum(1)
    bits = 1 / (math.log(2) * _pixels(data))
    return {
        "bits_per_dim": float((distortion + rate).mean()) * bits,
        "rate_bits_per_dim": float(rate.mean()) * bits,
        "squared_error": float(F.mse_loss(image_mean, batch.images)),
    }


class DecoderGraph(nn.Module):
    """Latents, pixel noise and classes to pictures: the mean, noise of standard deviation `decoder_noise`,
    the data's own grey levels where they are few, and the size at which they are shown."""

    def __init__(self, decoder: nn.Module, *, decoder_noise: float, levels: int, enlarge: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.decoder_noise = decoder_noise
        self.levels = levels
        self.enlarge = Enlarge(enlarge)

    def forward(self, latent: Tensor, noise: Tensor, class_id: Tensor | None = None) -> Tensor:
        mean, _ = self.decoder(latent, None if class_id is None else class_id[:, 0])
        images = (mean + self.decoder_noise * noise).clamp(-1, 1)
        if self.levels < 256:
            half = (self.levels - 1) / 2
            images = ((images + 1) * half).round() / half - 1
        enlarged: Tensor = self.enlarge(images)
        return enlarged


class EncoderGraph(nn.Module):
    """Pictures at the size at which they are shown, and classes, to mean and log variance of the latent."""

    def __init__(self, encoder: nn.Module, *, enlarge: int) -> None:
        super().__init__()
        self.shrink = Shrink(enlarge)
        self.encoder = encoder

    def forward(self, image: Tensor, class_id: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(self.shrink(image), None if class_id is None else class_id[:, 0])
        return mean, log_variance


def sample(
    config: VAESettings, networks: nn.ModuleDict, data: DataSpec, count: int, generator: torch.Generator
) -> Tensor:
    """Images decoded from the prior, the classes in turn."""
    device = generator.device
    graph = DecoderGraph(
        networks["decoder"], decoder_noise=config.decoder_noise, levels=data.levels, enlarge=1
    )
    latent = torch.randn(count, config.latent_dim, generator=generator, device=device)
    noise = torch.randn(count, data.channels, data.height, data.width, generator=generator, device=device)
    classes = _classes(config, data)
    class_id = (torch.arange(count, device=device) % classes)[:, None] if classes else None
    with torch.no_grad():
        images: Tensor = graph(latent, noise, class_id)
    return images


def graphs(config: VAESettings, networks: nn.ModuleDict, data: DataSpec) -> Sequence[Graph]:
    """The decoder, which generates, and the encoder."""
    classes = _classes(config, data)
    class_id = (GraphTensor(name="class_id", shape=(1,), dtype=torch.int64, high=classes),) if classes else ()
    shown = (data.channels, data.height * data.enlarge, data.width * data.enlarge)
    latent = (config.latent_dim,)
    return (
        Graph(
            role="decoder",
            module=DecoderGraph(
                networks["decoder"],
                decoder_noise=config.decoder_noise,
                levels=data.levels,
                enlarge=data.enlarge,
            ),
            inputs=(
                GraphTensor(name="latent", shape=latent),
                GraphTensor(name="noise", shape=(data.channels, data.height, data.width)),
                *class_id,
            ),
            outputs=(GraphTensor(name="sample", shape=shown),),
        ),
        Graph(
            role="encoder",
            module=EncoderGraph(networks["encoder"], enlarge=data.enlarge),
            inputs=(GraphTensor(name="image", shape=shown), *class_id),
            outputs=(
                GraphTensor(name="mean", shape=latent),
                GraphTensor(name="log_variance", shape=latent),
            ),
        ),
    )


def _autoencode(
    networks: nn.ModuleDict, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and log variance of the latent, and mean and log sigma of the image from one latent drawn."""
    mean, log_variance = networks["encoder"](batch.images, batch.labels)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    image_mean, log_sigma = networks["decoder"](mean + (0.5 * log_variance).exp() * noise, batch.labels)
    return mean, log_variance, image_mean, log_sigma


def _architecture(config: VAESettings, data: DataSpec) -> str:
    if config.architecture == "auto":
        return "mlp" if data.height * data.width <= MLP_PIXELS else "conv"
    return config.architecture


def _pyramid(config: VAESettings, data: DataSpec) -> Pyramid:
    return Pyramid(
        height=data.height, width=data.width, channels=config.channels, max_channels=config.max_channels
    )


def _pixels(data: DataSpec) -> int:
    return data.channels * data.height * data.width


def _classes(config: VAESettings, data: DataSpec) -> int:
    return len(data.class_labels) if config.conditional else 0


FAMILY = Family(
    name="vae",
    config=VAESettings,
    tasks=("generate", "encode", "decode"),
    networks=networks,
    optimizers=optimizers,
    step=step,
    averaged=("encoder", "decoder"),
    sample=sample,
    evaluate=evaluate,
    graphs=graphs,
    metadata={"paper": "Kingma and Welling 2014, arXiv:1312.6114"},
)
"""Variational autoencoders."""

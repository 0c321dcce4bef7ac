"""An independently trained classifier that judges generated images and gives the features for distances.

It never sees a generated image in training. One small convolutional network serves every data set: it
has a head for each kind of label, so that a translated shape is judged by shape, colour and domain.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Images = NDArray[np.float32]
Labels = Mapping[str, NDArray[np.int64]]

_FEATURES = 64
_REVISION = 2  # of the network and its training: part of the name in the cache


class Network(nn.Module):
    """Convolutions to 4×4 pixels, a dense layer of 64 features, and a linear head for each kind of label.

    The features are not rectified, since the Fréchet distance takes them for Gaussian.
    """

    def __init__(self, channels: int, size: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width, in_channels = 32, channels
        if size > 16:  # shapes and edges of larger images survive a coarser look
            layers.append(nn.PixelUnshuffle(2))
            in_channels, size = 4 * channels, size // 2
        while size > 4:
            layers += [
                nn.Conv2d(in_channels, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            in_channels, width, size = width, min(2 * width, 128), (size + 1) // 2
        self.body = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(in_channels * 16, _FEATURES)
        )
        self.heads = nn.ModuleDict({name: nn.Linear(_FEATURES, count) for name, count in heads.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [n, 64] and logits [n, classes] by head, of images [n, channels, height, width]."""
        features = self.body(images)
        return features, {name: head(features) for name, head in self.heads.items()}


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A trained classifier."""

    network: Network
    """In eval mode, on the CPU."""

    def features(self, images: Images) -> NDArray[np.float64]:
        """Features [n, 64] of images [n, channels, height, width] in [-1, 1]."""
        return self._run(images)[0]

    def predict(self, images: Images) -> dict[str, NDArray[np.int64]]:
        """Most likely class [n] by head."""
        return {name: logits.argmax(1) for name, logits in self._run(images)[1].items()}

    def _run(self, images: Images) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        features, logits = [], []
        with torch.inference_mode():
            for block in torch.split(torch.from_numpy(np.ascontiguousarray(images, np.float32)), 256):
                block_features, block_logits = self.network(block)
                features.append(block_features.double().numpy())
                logits.append(block_logits)
        return np.concatenate(features), {
            name: torch.cat([block[name] for block in logits]).numpy() for name in self.network.heads
        }


def train_judge(
    images: Images, labels: Labels, *, epochs: int | None = None, batch: int = 64, seed: int = 1234
) -> Judge:
    """A judge of these images [n, channels, height, width] in [-1, 1] and their labels [n] by head.

    Adam with a one-cycle rate over images shifted by up to an eighth of their size, for 60 epochs, but at
    least 1,000 and at most 3,000 updates.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = {name: int(values.max()) + 1 for name, values in labels.items()}
        network = Network(images.shape[1], max(images.shape[2:]), heads)
        inputs = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        targets = {name: torch.from_numpy(values.astype(np.int64)) for name, values in labels.items()}
        per_epoch = max(len(inputs) // batch, 1)
        updates = epochs * per_epoch if epochs else min(max(1000, 60 * per_epoch), 3000)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=updates)
        reach = max(images.shape[2] // 8, 1)
        for update in range(updates):
            if update % per_epoch == 0:
                order = torch.randperm(len(inputs))
            chosen = order[(update % per_epoch) * batch :][:batch]
            _, logits = network(_shift(inputs[chosen], reach))
            loss = torch.stack(
                [F.cross_entropy(logits[name], targets[name][chosen]) for name in targets]
            ).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return Judge(network=network.eval().requires_grad_(False))


def cached_judge(images: Images, labels: Labels, *, key: str) -> Judge:
    """The judge of this data from the cache, or a new one; `key` is a digest of the data and its options."""
    folder = Path(os.environ.get("ATELIER_CACHE", Path.home() / ".cache" / "atelier")) / "judges"
    path = folder / f"{key}-{_REVISION}.safetensors"
    heads = {name: int(values.max()) + 1 for name, values in labels.items()}
    network = Network(images.shape[1], max(images.shape[2:]), heads)
    if path.exists():
        try:
            network.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError):
            path.unlink()  # cut short or of an older shape: train it again
        else:
            return Judge(network=network.eval().requires_grad_(False))
    judge = train_judge(images, labels)
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    save_file(judge.network.state_dict(), beside)
    beside.replace(path)
    return judge


def _shift(images: Tensor, reach: int) -> Tensor:
    """Each batch moved by one random offset of at most `reach` pixels, edges repeated."""
    dy, dx = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    height, width = images.shape[2:]
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return padded[:, :, dy : dy + height, dx : dx + width]

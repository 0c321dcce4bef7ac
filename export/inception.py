"""FID on Inception features (Heusel et al. 2017), by torch-fidelity, where its weights are at hand."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

Images = NDArray[np.float32]


class InceptionError(RuntimeError):
    """FID was asked for and cannot be had: says what is missing."""


class _Uint8Images(Dataset[Tensor]):
    """Images as torch-fidelity takes them: uint8 [3, height, width]."""

    def __init__(self, images: Images) -> None:
        pixels = torch.from_numpy(np.round((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8))
        self._images = pixels.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index]


def inception_frechet_distance(real: Images, fake: Images, weights: Path) -> float:
    """FID of images [n, channels, height, width] in [-1, 1], with Inception weights from a file.

    Raises `InceptionError` where the weights or torch-fidelity are missing.
    """
    if not weights.is_file():
        raise InceptionError(
            f"no Inception weights at {weights}: give the file weights-inception-2015-12-05-6726825d.pth"
        )
    try:
        fidelity = importlib.import_module("torch_fidelity")
    except ImportError as error:
        raise InceptionError(f"FID needs torch-fidelity: pip install 'atelier[fid]' ({error})") from error
    found = fidelity.calculate_metrics(
        input1=_Uint8Images(fake),
        input2=_Uint8Images(real),
        fid=True,
        cuda=torch.cuda.is_available(),
        feature_extractor_weights_path=str(weights),
        verbose=False,
    )
    return float(found["frechet_inception_distance"])

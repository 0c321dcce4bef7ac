"""FID on Inception features (Heusel et al. 2017), by torch-fidelity, where its weights are at hand."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

Images = NDArray[np.float32]

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""The file that torch-fidelity publishes: TensorFlow's Inception of 2015, by which FID is defined."""

WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Its digest. Other weights give other distances; and as it is a pickle, none but this one is opened."""


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


def require_inception(weights: Path) -> Any:
    """torch-fidelity, where FID can be measured with these weights.

    Raises `InceptionError` where the weights are missing or others, or where torch-fidelity is missing or
    does not load.
    """
    if not weights.is_file():
        raise InceptionError(f"no Inception weights at {weights}: give the file {WEIGHTS}")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise InceptionError(
            f"{weights} is not {WEIGHTS}, by which FID is defined: its sha256 is {digest[:8]}..., not "
            f"{WEIGHTS_SHA256[:8]}...; fetch it again"
        )
    try:
        return importlib.import_module("torch_fidelity")
    except ImportError as error:
        raise InceptionError(f"FID needs torch-fidelity: pip install 'atelier[fid]' ({error})") from error
    except RuntimeError as error:  # torchvision's, where it was built for another torch
        raise InceptionError(
            f"torch-fidelity does not load: {error}; install the torchvision that goes with torch "
            f"{torch.__version__}"
        ) from error


def inception_frechet_distance(real: Images, fake: Images, weights: Path) -> float:
    """FID of images [n, channels, height, width] in [-1, 1], with Inception weights from a file.

    Raises `InceptionError` as `require_inception` does.
    """
    found = require_inception(weights).calculate_metrics(
        input1=_Uint8Images(fake),
        input2=_Uint8Images(real),
        fid=True,
        cuda=torch.cuda.is_available(),
        feature_extractor_weights_path=str(weights),
        save_cpu_ram=True,  # no processes to load what is in memory already
        verbose=False,
    )
    return float(found["frechet_inception_distance"])

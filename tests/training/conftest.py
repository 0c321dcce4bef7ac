"""Makes the family and the data set `toy` known, and runs them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import toy

from training.config import resolve_config
from training.data import DATASETS
from training.devices import launch
from training.families import FAMILIES
from training.loop import Result, train

QUICK = {"data": "toy", "batch_size": 8, "tensorboard": False, "accelerator": "cpu", "log_every": 5}


@pytest.fixture(autouse=True)
def toy_is_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(FAMILIES, "toy", "toy:FAMILY")
    monkeypatch.setitem(DATASETS, "toy", "toy:open_toy")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train_toy(tmp_path: Path) -> Callable[..., Result]:
    """Trains `toy` into `tmp_path / name`: settings as a file's, a family and data of one's own if wanted."""

    def run(
        name: str = "run", resume: Any = None, family: Any = toy.FAMILY, data: Any = None, **settings: Any
    ):
        config = resolve_config(family, QUICK | settings, {})
        return train(config, family, data or toy.open_toy(None), tmp_path / name, launch(config), resume)

    return run

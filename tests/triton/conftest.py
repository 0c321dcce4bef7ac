"""Tiny models, and a real Triton over them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import tiny_graphs

from tests.triton.server import tiny_triton

__all__ = ["tiny_triton"]


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a model of every kind. Not to be written to."""
    return tiny_graphs.publish_all(tmp_path_factory.mktemp("repository"))

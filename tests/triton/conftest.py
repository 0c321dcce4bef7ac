"""Tiny models, and what is asked of real Tritons over them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import tiny_graphs

from tests.triton.server import few_instances, need_triton, say_if_missing, tiny_server, tiny_triton

__all__ = ["tiny_server", "tiny_triton"]


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a model of every kind. Not to be written to."""
    return tiny_graphs.publish_all(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def translators(tmp_path: Path) -> Path:
    """A repository of a translator alone, which takes images of any size."""
    need_triton()
    tiny_graphs.publish_translator(tmp_path / "published")
    return few_instances(tmp_path / "published", tmp_path / "repository")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says loudly that there was no Triton."""
    say_if_missing(terminalreporter)

"""A real Triton for the tests, or a loud word that there is none.

Where its wheel cannot be installed, tests over Triton are skipped and the end of the run says so in red;
with CI=true they fail.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from benchmarks.triton.installation import TritonMissingError, installed
from benchmarks.triton.server import Control, TritonServer, lay_out, triton_server
from serving.service import Service

__all__ = [
    "Control",
    "TritonServer",
    "few_instances",
    "for_many",
    "loaded",
    "missing",
    "need_triton",
    "standing",
    "triton_server",
]

_LOAD_SECONDS = 30.0


@cache
def missing() -> str | None:
    """Why there is no Triton; None where there is."""
    try:
        installed()
    except TritonMissingError as error:
        return str(error)
    return None


def need_triton() -> None:
    """Skips what needs Triton where there is none; fails it where CI must have one."""
    why = missing()
    if why is not None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must test over a real Triton: {why}", pytrace=False)
        pytest.skip(f"NO REAL TRITON: {why}")


def say_if_missing(reporter: pytest.TerminalReporter) -> None:
    """A red line at the end of a run in which something wanted a Triton and there was none."""
    if missing.cache_info().currsize and missing():
        reporter.section("NO REAL TRITON", red=True, bold=True)
        reporter.line(f"Tests over it did not run: {missing()}", red=True)


def few_instances(repository: Path, target: Path) -> Path:
    """A copy of a repository with one instance of each version of each graph."""
    lay_out(repository, target, instances=1)
    for config in target.glob("*/config.pbtxt"):
        text = config.read_text("utf-8")
        if "version_policy" not in text:
            config.write_text(text + "version_policy { all {} }\n", "utf-8")
    return target


@pytest.fixture(scope="session")
def tiny_server(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The Triton of `tiny_triton`, which is what a test asks for."""
    need_triton()
    with for_many(few_instances(tiny_repository, tmp_path_factory.mktemp("triton") / "all")) as server:
        yield server


@pytest.fixture
def tiny_triton(tiny_server: TritonServer) -> Iterator[TritonServer]:
    """A Triton over the tiny models. Not to be written to, nor to be ended."""
    with standing(tiny_server):
        yield tiny_server


@contextmanager
def for_many(
    repository: Path, *, control: Control = "none", flags: Sequence[str] = ()
) -> Iterator[TritonServer]:
    """A Triton that many tests have one after the other, each of them `standing`."""
    server = TritonServer(repository, control=control, flags=flags)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def standing(server: TritonServer) -> Iterator[None]:
    """A test over a Triton of many: it fails where that dies, and at once where it has died before.

    The server is started for the first of them, and again after its death for those that follow.
    """
    if server.process is None:
        server.start()
    _restart_if_dead(server)
    yield
    _restart_if_dead(server)


def _restart_if_dead(server: TritonServer) -> None:
    if not server.running:
        assert server.process is not None, "started before"
        died = f"Triton died with {server.process.returncode} and is started again. It said:\n{server.said()}"
        server.start()
        pytest.fail(died, pytrace=False)


async def loaded(service: Service) -> None:
    """Waits for the models of a service, and not for ever where their server has gone."""
    async with asyncio.timeout(_LOAD_SECONDS):
        await service.wait_loaded()

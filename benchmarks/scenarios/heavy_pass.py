"""A graph of one pass that takes milliseconds an image: what a server adds to it weighs little."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import SOURCE_TREE
from benchmarks.plan import Plan
from benchmarks.scenarios import Tell
from benchmarks.scenarios.one_pass import one_pass

_MODEL = "wide_gan"
_CHANNELS = 64  # 2 to 3 ms an image at 32×32, on one core of the machines that this was written on
_UNTRAINED = ("steps=1", "batch_size=2", "sample_every=0", "evaluate_every=0")


async def heavy_pass(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Figures as of `one_pass` for a wide generator, made here and untrained: to a clock that is the same."""
    with tempfile.TemporaryDirectory() as folder:
        run, repository = Path(folder, "run"), Path(folder, "models")
        tell(f"{_MODEL} is made")
        settings = (*_UNTRAINED, f"gan.channels={_CHANNELS}", f"gan.max_channels={_CHANNELS}")
        flags = [word for setting in settings for word in ("--set", setting)]
        await _atelier("train", "gan", "--data", "shapes", "--run-dir", run, *flags)
        await _atelier("export", run, "--to", repository, "--name", _MODEL)
        return await one_pass(replace(plan, repository=repository, one_pass=(_MODEL,)), tell)


async def _atelier(*arguments: str | Path) -> None:
    """Runs a command; RuntimeError with what it said where it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atelier", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(SOURCE_TREE)},
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:  # cancelled: nobody wants it any more
            process.kill()
    if process.returncode:
        raise RuntimeError(f"atelier {arguments[0]} failed:\n{said.decode(errors='replace')}")

"""`atelier pipeline`: all of the way in some minutes, from nothing to pictures of four small models.

Every step is the command that a user would type, printed before it is run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

RECIPES = Path(__file__).parent.parent / "training" / "recipes"


@dataclass(frozen=True, kw_only=True)
class Small:
    """A recipe, cut short."""

    family: str
    """Family to train."""
    recipe: str
    """Recipe in `training/recipes`."""
    steps: int
    """Updates: enough to see what it is going to be."""


MODELS = (
    Small(family="cyclegan", recipe="shapes_cyclegan", steps=1200),
    Small(family="diffusion", recipe="digits_unet", steps=2500),
    Small(family="gan", recipe="digits_gan", steps=2500),
    Small(family="vae", recipe="digits_vae", steps=4000),
)
"""The longest first, so that two processes end at about the same time."""


class StepFailedError(RuntimeError):
    """A command that did not end well: carries its words."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="atelier pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder to work in (default: a new one in runs/)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of updates")
    options = parser.parse_args(arguments)
    console = Console()
    out = options.out or _new_folder(Path("runs"))
    started = time.monotonic()
    try:
        # One process a core: networks as small as these gain nothing from threads.
        with ThreadPoolExecutor(max(1, min(len(MODELS), os.cpu_count() or 1))) as pool:
            for _ in pool.map(lambda small: _train_and_export(small, out, options.scale, console), MODELS):
                pass
    except StepFailedError as error:
        print(f"atelier pipeline: {error}", file=sys.stderr)
        return 1
    console.print(f"Trained and exported in {time.monotonic() - started:.0f} s.")
    sheet = out / "contact_sheet.png"
    return subprocess.call(  # noqa: S603 - our own command
        _atelier("demo", "--repository", str(out / "model_repository"), "--out", str(sheet), "--once")
    )


def _train_and_export(small: Small, out: Path, scale: float, console: Console) -> None:
    run, recipe = out / small.recipe, RECIPES / f"{small.recipe}.toml"
    steps = max(int(small.steps * scale), 2)
    train = ["train", small.family, "--config", str(recipe), "--set", f"steps={steps}", "--run-dir", str(run)]
    _run(train, console)
    _run(["export", str(run), "--to", str(out / "model_repository"), "--name", small.recipe], console)


def _run(arguments: Sequence[str], console: Console) -> None:
    console.print(f"[dim]$[/dim] atelier {shlex.join(arguments)}")
    started = time.monotonic()
    ended = subprocess.run(  # noqa: S603 - our own command
        _atelier(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ended.returncode:
        raise StepFailedError(
            f"atelier {shlex.join(arguments)} ended with {ended.returncode}:\n{ended.stdout[-3000:]}"
        )
    console.print(f"  [green]✓[/green] {arguments[0]} {arguments[1]} in {time.monotonic() - started:.0f} s")


def _atelier(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "atelier", *arguments]


def _new_folder(parent: Path) -> Path:
    number = 1
    while (folder := parent / f"pipeline-{number}").exists():
        number += 1
    return folder

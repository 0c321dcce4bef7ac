"""`atelier train`: reads what is asked for, then trains."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from training import checkpoint
from training.checkpoint import Checkpoint, CheckpointError
from training.coerce import ConfigError
from training.config import TrainConfig, parse_flags, read_file, resolve_config, to_toml
from training.data import DataError, Splits
from training.data.open import open_data
from training.devices import launch, leave, set_threads
from training.failures import TrainingError
from training.families import FAMILIES
from training.family import Family
from training.loop import Result, train
from training.progress import duration
from training.resolve import resolve

RUNS = Path("runs")
"""Folder of all runs, under the present one."""

RESUME_NEWEST = "newest"


def main(arguments: list[str]) -> int:
    """Run `atelier train`; 0 when trained, 2 when asked for what cannot be, 128 + n after signal n."""
    options = parser().parse_args(arguments)
    try:
        return run(options)
    except (ConfigError, DataError, CheckpointError, ValueError) as error:
        print(f"atelier train: {error}", file=sys.stderr)
        return 2
    except (TrainingError, OSError) as error:
        print(f"atelier train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("atelier train: stopped before the first step", file=sys.stderr)
        return 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="atelier train",
        description="Train a model of one family on your data, into a folder under runs/.",
        epilog="Settings are taken from defaults, then --config, then --data and --set; "
        "--dry-run prints them all.",
    )
    add = result.add_argument
    add("family", nargs="?", metavar="FAMILY", help=", ".join(FAMILIES) + "; may be left out with --resume")
    add("--data", help="data set: digits, shapes, folder:PATH, ...")
    add("--config", type=Path, metavar="FILE", help="TOML file of settings, or the config.json of a run")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, such as steps=100")
    add("--run-dir", type=Path, metavar="DIR", help="folder of the run (default: runs/NAME)")
    add(
        "--resume",
        nargs="?",
        const=RESUME_NEWEST,
        metavar="RUN",
        help="go on with a run (the newest if none is named), or from an older checkpoint into --run-dir",
    )
    add("--dry-run", action="store_true", help="print the configuration and the networks' sizes, and stop")
    return result


def run(options: argparse.Namespace) -> int:
    """Resolve the configuration, open the data, train and say how it went."""
    resume = find_resumed(options) if options.resume else None
    config, family = resolve_options(options, resume)
    fabric = launch(config) if not options.dry_run else None
    data = open_data(config.data, **config.data_options)
    if fabric is None:
        print(to_toml(config.plain()), end="")
        print(describe(config, family, data))
        return 0
    folder = fabric.broadcast(run_folder(options, config, resume))
    set_threads(config.threads, data.train.spec)
    if fabric.is_global_zero:
        announce(config, data, folder, fabric, resume)
    result = train(config, family, data, folder, fabric, resume)
    leave()
    return report(result, fabric)


def resolve_options(options: argparse.Namespace, resume: Checkpoint | None) -> tuple[TrainConfig, Family]:
    """The configuration that the command line and its file mean, and its family."""
    file = read_file(options.config) if options.config else {}
    base: dict[str, Any] = resume.config.plain() if resume else {}
    name = options.family or file.get("family") or base.get("family")
    if not name:
        raise ConfigError(f"name a family: atelier train FAMILY, one of {', '.join(FAMILIES)}")
    family: Family = resolve(FAMILIES, str(name), "family")
    if resume and resume.family.name != family.name:
        raise CheckpointError(
            f"{resume.path} is a checkpoint of family {resume.family.name!r}, not of {family.name!r}"
        )
    flags = parse_flags(options.set)
    if options.data:
        flags["data"] = options.data
    return resolve_config(family, merged(base, file), flags), family


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables of settings, `above` being the stronger, tables in them merged likewise."""
    result = {**below, **above}
    for key, value in above.items():
        under = below.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            result[key] = merged(under, value)
    return result


def find_resumed(options: argparse.Namespace) -> Checkpoint:
    """The checkpoint that --resume means: of a run, of a folder, or of the newest run."""
    if options.resume == RESUME_NEWEST:
        if options.run_dir is not None:
            return checkpoint.load(options.run_dir)
        folders = [run for run in RUNS.glob("*") if checkpoint.listed(run)]
        if not folders:
            raise CheckpointError(f"there is no run with a checkpoint under {RUNS}/ to resume")
        newest = max(folders, key=lambda run: checkpoint.listed(run)[-1].stat().st_mtime)
        return checkpoint.load(newest)
    path = Path(options.resume)
    if not path.exists() and (RUNS / path).exists():
        path = RUNS / path
    if not path.exists():
        near = difflib.get_close_matches(path.name, [p.name for p in RUNS.glob("*")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CheckpointError(f"there is no run {options.resume!r}, neither here nor under {RUNS}/{hint}")
    return checkpoint.load(path)


def run_folder(options: argparse.Namespace, config: TrainConfig, resume: Checkpoint | None) -> Path:
    """Where the run is written: a folder without checkpoints, or the one of the resumed run."""
    if resume:
        own = resume.path.parent.parent
        folder: Path = options.run_dir or own
        if folder.resolve() == own.resolve():
            if checkpoint.listed(own)[-1] != resume.path:
                raise CheckpointError(
                    f"{resume.path} is not the newest checkpoint of its run: "
                    f"name a new folder with --run-dir to go on from it there"
                )
            return own
    else:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        data = re.sub(r"[^A-Za-z0-9]+", "-", config.data).strip("-")
        folder = options.run_dir or RUNS / (config.name or f"{config.family}-{data}-{stamp}")
    if checkpoint.listed(folder):
        raise CheckpointError(
            f"{folder} already holds a run: go on with it by --resume {folder}, "
            f"name another folder with --run-dir, or remove it"
        )
    return folder


def describe(config: TrainConfig, family: Family, data: Splits) -> str:
    """The data, the networks' sizes and the threads, as comments of the printed configuration."""
    spec = data.train.spec
    torch.manual_seed(config.seed)
    networks = family.networks(config.settings, spec)
    lines = [
        f"# data: {len(data.train):,} images to train on and {len(data.held_out):,} held out, "
        f"{spec.channels}×{spec.height}×{spec.width}, {len(spec.class_labels)} classes",
        *(
            f"# network {n}: {sum(p.numel() for p in m.parameters()):,} parameters"
            for n, m in networks.items()
        ),
    ]
    return "\n".join(lines)


def announce(
    config: TrainConfig, data: Splits, folder: Path, fabric: Fabric, resume: Checkpoint | None
) -> None:
    """One line on what begins, and one for every setting that differs from the resumed run's."""
    begin = f"from step {resume.step:,}" if resume else "from the beginning"
    where = f"{fabric.world_size} × {fabric.device.type}"
    print(
        f"training {config.family} on {config.data} ({len(data.train):,} images) {begin} "
        f"to step {config.steps:,} on {where}, {config.precision}: {folder}",
        file=sys.stderr,
    )
    if resume:
        for field in dataclasses.fields(config):
            before, now = getattr(resume.config, field.name), getattr(config, field.name)
            if before != now:
                print(f"  {field.name}: {now!r}, was {before!r}", file=sys.stderr)


def report(result: Result, fabric: Fabric) -> int:
    """Say how a run ended; its exit status."""
    stopped = result.step < result.steps
    if fabric.is_global_zero:
        print(
            f"{'stopped at' if stopped else 'trained to'} step {result.step:,} of {result.steps:,} in "
            f"{duration(result.seconds)} ({result.cpu_seconds:.1f} CPU-seconds): {result.checkpoint}",
            file=sys.stderr,
        )
        if stopped:
            print(f"go on with: atelier train --resume {result.run}", file=sys.stderr)
    if not stopped:
        return 0
    return 128 + (result.signal or signal.SIGTERM)

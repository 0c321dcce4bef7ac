"""Checkpoints: safetensors and JSON in a directory that appears whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor, nn

from training.coerce import ConfigError, plain
from training.config import TrainConfig, resolve_config
from training.data import DataSpec
from training.families import FAMILIES
from training.family import Family
from training.resolve import resolve

FORMAT = 1
"""Version of the layout, in `checkpoint.json`."""

PARTS = ("networks", "averages", "optimizers")
"""Files of tensors, each `<part>.safetensors`."""

STEP_FOLDER = re.compile(r"step-(\d{8})")
WRITING = ".writing"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, written or used here: names the path and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run at some step, read from its directory; tensors are read when asked for."""

    path: Path
    """The checkpoint's own directory."""
    family: Family
    """Family of the run."""
    config: TrainConfig
    """Resolved configuration of the run."""
    data: DataSpec
    """What it was trained on, with the digest of all images and labels."""
    step: int
    """Updates made."""
    seed: int
    """Seed of the run."""
    curve: tuple[Mapping[str, float], ...]
    """Points of the curve so far: step, seconds, cpu_seconds, losses and held-out figures by name."""
    cpu_seconds: float
    """Processor time spent so far, over all threads of the first process."""
    seconds: float
    """Wall-clock time spent so far."""
    scaler: Mapping[str, Any]
    """State of the gradient scaler of fp16; empty for other precisions."""
    sizes: Mapping[str, int]
    """Bytes of each file of tensors."""

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The tensors of a part: `networks`, `averages` or `optimizers`."""
        path = self.path / f"{part}.safetensors"
        try:
            return parse_tensors(path.read_bytes())
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}; use another checkpoint") from error
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}); use an earlier checkpoint") from error

    def averaged_networks(self) -> nn.ModuleDict:
        """The family's networks in eval mode, with averaged weights where averages are kept.

        Leaves torch's global random state as it was.
        """
        state = torch.get_rng_state()
        try:
            networks = self.family.networks(self.config.settings, self.data)
        finally:
            torch.set_rng_state(state)
        load_into(networks, self.tensors("networks") | self.tensors("averages"), self.path)
        return networks.eval()


def load(path: Path | str, expect_family: str | None = None) -> Checkpoint:
    """The checkpoint in a directory, or the newest of a run's directory.

    CheckpointError if there is none, if a file is missing or truncated, or if it is not of `expect_family`.
    """
    place = find(Path(path))
    try:
        values = json.loads((place / "checkpoint.json").read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise CheckpointError(
                f"{place} has format {values['format']}, and this version of Atelier reads {FORMAT}: "
                f"use the version that wrote it"
            )
        name, data, config = values["family"], values["data"], values["config"]
        curve, sizes, scaler = values["curve"], values["sizes"], values["scaler"]
        step, seed = int(values["step"]), int(values["seed"])
        cpu_seconds, seconds = float(values["cpu_seconds"]), float(values["seconds"])
    except OSError as error:
        raise CheckpointError(f"cannot read {place}/checkpoint.json: {error.strerror}") from error
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{place}/checkpoint.json is damaged ({error!r}); use an earlier checkpoint of the run"
        ) from error
    if expect_family is not None and name != expect_family:
        raise CheckpointError(f"{place} is a checkpoint of family {name!r}, not of {expect_family!r}")
    for part, size in sizes.items():
        file = place / f"{part}.safetensors"
        found = file.stat().st_size if file.is_file() else 0
        if found != size:
            raise CheckpointError(
                f"{file} is truncated: it has {found:,} of {size:,} bytes; use an earlier checkpoint"
            )
    family: Family = resolve(FAMILIES, name, "family")
    try:
        settings = resolve_config(family, config, {})
    except ConfigError as error:
        raise CheckpointError(f"{place} was written by another version of Atelier: {error}") from error
    return Checkpoint(
        path=place,
        family=family,
        config=settings,
        data=data_spec(data),
        step=step,
        seed=seed,
        curve=tuple(curve),
        cpu_seconds=cpu_seconds,
        seconds=seconds,
        scaler=scaler,
        sizes=sizes,
    )


def find(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest of a run."""
    if (path / "checkpoint.json").is_file():
        return path
    folders = listed(path)
    if folders:
        return folders[-1]
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: give the folder of a run, such as runs/NAME")
    raise CheckpointError(
        f"{path} is not a run: it has no checkpoints/step-*/checkpoint.json "
        f"(a run that was stopped before its first checkpoint has none)"
    )


def folder(run: Path, step: int) -> Path:
    """Where a run's checkpoint of a step stands."""
    return run / "checkpoints" / f"step-{step:08d}"


def listed(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not (run / "checkpoints").is_dir():
        return []
    found = [
        p
        for p in (run / "checkpoints").iterdir()
        if STEP_FOLDER.fullmatch(p.name) and (p / "checkpoint.json").is_file()
    ]
    return sorted(found)


def save(run: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> Path:
    """Write a checkpoint of `step`: beside, synced to disk, then renamed into place.

    `values` is what `checkpoint.json` says besides format, step and sizes. On an error nothing is left
    behind, and the other checkpoints stay as they were.
    """
    final = folder(run, step)
    beside = final.with_name(final.name + WRITING)
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        sizes = {}
        for part in PARTS:
            payload = serialize_tensors({k: _standalone(v) for k, v in parts[part].items()})
            sizes[part] = len(payload)
            _write(beside / f"{part}.safetensors", payload)
        text = json.dumps({**plain(values), "format": FORMAT, "step": step, "sizes": sizes}, indent=1)
        _write(beside / "checkpoint.json", text.encode())
        _sync_folder(beside)
        if final.exists():
            shutil.rmtree(final)
        os.rename(beside, final)
        _sync_folder(final.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        kept = f"the last one is as it was: make room and go on with --resume {run}"
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {error.strerror}; "
            f"{kept if listed(run) else 'there is none before it: make room and begin again'}"
        ) from error
    return final


def prune(run: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints (0: none), and what a killed run was writing."""
    folders = listed(run)
    for old in folders[: max(0, len(folders) - keep)] if keep else []:
        # Renamed first: a kill while files are being removed must not leave half a checkpoint.
        doomed = old.with_name(old.name + WRITING)
        os.rename(old, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    for left in (run / "checkpoints").glob(f"*{WRITING}"):
        shutil.rmtree(left, ignore_errors=True)


def load_into(networks: nn.ModuleDict, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into networks by name; CheckpointError if names or shapes differ."""
    try:
        networks.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(
            f"the weights in {path} do not fit the configured networks ({reason}): "
            f"keep the settings of the run, or train anew"
        ) from error


def data_spec(values: Mapping[str, Any]) -> DataSpec:
    """A DataSpec from its JSON."""
    lists = {"class_labels", "domains"}
    names = {f.name for f in dataclasses.fields(DataSpec)}
    known: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in values.items() if k in names}
    return DataSpec(**known)


def _standalone(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _write(path: Path, payload: bytes) -> None:
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

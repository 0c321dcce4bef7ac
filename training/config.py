"""What a training run is told: defaults, under a file, under the command line."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.coerce import ConfigError, Text, build, plain, unknown_key
from training.data.augment import AUGMENTATIONS
from training.family import Family

FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
"""Our names of precisions and Fabric's."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run. In a file the family's own `settings` stand in a table that is named as the family."""

    family: str
    """Family of models, a key of `FAMILIES`."""
    data: str
    """Data set by name, or by name and path: `digits`, `folder:/photos`."""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the data set."""
    name: str = ""
    """Name of the run and its folder under `runs/`; empty: family, data and time."""
    seed: int = 0
    """Fixes initial weights, order of the data and all random draws."""
    steps: int = 10_000
    """Updates in the whole run."""
    batch_size: int = 64
    """Images of an update, over all processes together."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Course of the learning rate after the warm-up: constant, or falling to zero at the last step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    ema_decay: float = 0.999
    """Decay of the averaged weights a step; less at the beginning: min(decay, (1 + step) / (10 + step))."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Arithmetic of the forward pass; weights and their averages are always float32."""
    compile: bool = False
    """Compile the networks with torch.compile: pays on GPUs and on large images, costs a minute at the start.
    Losses that differentiate gradients (R1, R2, Wasserstein with penalty) cannot be compiled."""
    accelerator: str = "auto"
    """cpu, cuda, mps, or auto: a GPU where there is one."""
    devices: int = 1
    """Processes on this machine, one a device; under torchrun its own count holds."""
    nodes: int = 1
    """Machines; under torchrun its own count holds."""
    threads: int = 0
    """Threads of torch in a process on the CPU. 0: one for images of up to 32×32 pixels, for which more
    cost more than they bring; else all cores but at most four."""
    prefetch: int | None = None
    """Batches read ahead in a thread; none: 2 on a GPU, 0 on the CPU."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step always has one."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep; 0 keeps all."""
    sample_every: int = 1000
    """Steps between grids of samples, and one at the end; 0: none."""
    sample_count: int = 80
    """Images in a grid, in eight rows."""
    evaluate_every: int = 1000
    """Steps between measurements on held-out images, and one at the end; 0: none."""
    evaluate_count: int = 1024
    """Held-out images to measure on, at most."""
    log_every: int = 50
    """Steps between points of the curve, each the mean of the losses since the last."""
    tensorboard: bool = True
    """Write the curve and the grids for TensorBoard too."""
    augment: tuple[str, ...] = ()
    """Augmentations of the training images, applied in this order: keys of `AUGMENTATIONS`."""
    settings: Any = None
    """The family's own configuration."""

    def __post_init__(self) -> None:
        for name, low in MINIMA.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} = {value!r} is not possible: it must be at least {low}")
        for name in self.augment:
            if name not in AUGMENTATIONS:
                known = ", ".join(AUGMENTATIONS)
                raise ConfigError(f"augment = {name!r} is not possible: each must be one of {known}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay = {self.ema_decay!r} is not possible: it must be in [0, 1)")
        if self.warmup_steps >= self.steps:
            raise ConfigError(
                f"warmup_steps = {self.warmup_steps} is not possible: it must be below steps = {self.steps}"
            )

    def plain(self) -> dict[str, Any]:
        """The configuration as a file holds it, the family's settings in the family's table."""
        values: dict[str, Any] = plain(self)
        settings = values.pop("settings")
        return {**values, self.family: settings or {}}


MINIMA: dict[str, int] = {
    "seed": 0,
    "steps": 1,
    "batch_size": 1,
    "warmup_steps": 0,
    "devices": 1,
    "nodes": 1,
    "threads": 0,
    "prefetch": 0,
    "checkpoint_every": 1,
    "keep_checkpoints": 0,
    "sample_every": 0,
    "sample_count": 1,
    "evaluate_every": 0,
    "evaluate_count": 1,
    "log_every": 1,
}
"""Least values of the counts."""

TRAIN_KEYS = tuple(f.name for f in dataclasses.fields(TrainConfig) if f.name != "settings")


def resolve_config(family: Family, file: Mapping[str, Any], flags: Mapping[str, str]) -> TrainConfig:
    """The configuration of a run of `family`: defaults, under what a file says, under `key=value` flags.

    `flags` are dotted keys (`steps`, `diffusion.lr`, `data_options.size`) with values as typed. ConfigError
    names a key that does not exist, with the nearest that does, and a value of the wrong type.
    """
    table = family.name
    tables = {"data_options": None, table: [f.name for f in dataclasses.fields(family.config)]}
    known = [*TRAIN_KEYS, *(f"{table}.{name}" for name in tables[table] or ())]
    if file.get("family", table) != table:
        raise ConfigError(
            f"the configuration is for family {file['family']!r}, not {table!r}: "
            f"name that family on the command line, or give another file"
        )
    values: dict[str, Any] = {key: value for key, value in file.items() if key not in tables}
    nested = {key: _table(file, key) for key in tables}
    for key in values:
        if key not in TRAIN_KEYS:
            raise unknown_key(key, known)
    for key, text in flags.items():
        head, dot, rest = key.partition(".")
        if dot and head in nested:
            nested[head] = {**nested[head], rest: Text(text)}
        elif key in TRAIN_KEYS and key != "data_options":
            values[key] = Text(text)
        else:
            raise unknown_key(key, known)
    if not values.get("data"):
        raise ConfigError("data is missing: name the data set with --data, or as `data` in the file")
    values |= {"family": table, "data_options": nested["data_options"]}
    for key in nested[table]:
        if key not in (tables[table] or ()):
            raise unknown_key(f"{table}.{key}", known)
    settings = build(family.config, nested[table], f"{table}.")
    return dataclasses.replace(_build_train(values), settings=settings)


def read_file(path: Path) -> dict[str, Any]:
    """The values of a TOML file, or of the JSON that a run saved as `config.json`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"{path} is not valid {kind}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a table of settings, not {type(values).__name__}")
    return values


def parse_flags(pairs: Sequence[str]) -> dict[str, str]:
    """`key=value` texts as a mapping; later ones win."""
    flags = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {pair!r} must have the form key=value, as in --set steps=100")
        flags[key.strip()] = value.strip()
    return flags


def to_toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML, tables after the rest."""
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, Mapping)]
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", *(f"{_key(k)} = {_toml(v)}" for k, v in value.items())]
    return "\n".join(lines) + "\n"


def _build_train(values: Mapping[str, Any]) -> TrainConfig:
    config: TrainConfig = build(TrainConfig, values)
    return config


def _table(file: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = file.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} = {value!r} is not possible: it must be a table")
    return dict(value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)

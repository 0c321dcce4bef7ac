"""Whether data, family and checkpoint of a run go together, asked before anything is computed."""

from __future__ import annotations

from training.checkpoint import Checkpoint, CheckpointError
from training.coerce import ConfigError
from training.config import TrainConfig
from training.data import DataSpec
from training.family import Family


def check_data(family: Family, spec: DataSpec) -> None:
    """Refuse data of one domain for a family that translates between two."""
    if family.needs_pairs and len(spec.domains) != 2:
        raise ConfigError(
            f"family {family.name!r} translates between two domains, and data {spec.name!r} have one: "
            f"use shapes-stripes, emoji-sketch or folders:PATH"
        )


def check_resumable(config: TrainConfig, family: Family, spec: DataSpec, resume: Checkpoint) -> None:
    """Refuse a checkpoint of another family, seed or data, and one that has all its steps."""
    if resume.family.name != family.name:
        raise CheckpointError(
            f"{resume.path} is a checkpoint of family {resume.family.name!r}, not of {family.name!r}"
        )
    if resume.data.digest != spec.digest:
        raise CheckpointError(
            f"the data {spec.name!r} are not what {resume.path} was trained on (digest {spec.digest[:12]}, "
            f"was {resume.data.digest[:12]}): restore them, or begin a new run"
        )
    if resume.seed != config.seed:
        raise CheckpointError(
            f"{resume.path} has seed {resume.seed}, not {config.seed}: leave the seed, or begin a new run"
        )
    if resume.step >= config.steps:
        raise CheckpointError(
            f"{resume.path} is finished: it has {resume.step:,} of {config.steps:,} steps; "
            f"go on with --set steps=N for a larger N"
        )

"""Everything that is known of one graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from serving.manifest.acceleration import Acceleration
from serving.manifest.problems import ManifestError
from serving.manifest.records import VersionRecord
from serving.manifest.sampling import Sampling
from serving.manifest.tensors import TensorSpec
from serving.manifest.version_policy import PUBLISHED, VersionPolicy

Task = Literal["generate", "translate", "inpaint", "upscale", "denoise", "encode", "decode", "score"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything the gateway knows of one graph. Group by `model`, tell apart by `role`."""

    graph: str
    """Name of the graph: the folder's name in the repository and Triton's model name."""
    model: str
    """Public model that the graph belongs to."""
    role: str
    """`generator`, `decoder`, `encoder`, `denoiser`, or a direction such as `a_to_b`."""
    family: str
    """Family that trained it, for people to read."""
    tasks: tuple[Task, ...]
    """What the public model can be asked to do; the same in all of its graphs."""
    roles: tuple[str, ...]
    """All roles of the public model: a version is served when every one of them has it."""
    inputs: tuple[TensorSpec, ...]
    """Inputs of the graph."""
    outputs: tuple[TensorSpec, ...]
    """Outputs of the graph."""
    max_batch_size: int = 64
    """Most rows in one call."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """Values of black and white in image tensors."""
    class_labels: tuple[str, ...] = ()
    """Names of the classes in the order of their ids; empty for an unconditional model."""
    sampling: Sampling | None = None
    """How to sample, for a `denoiser`."""
    levels: int = 256
    """Number of grey levels in the training data."""
    domains: tuple[str, ...] = ()
    """Names of the domains of a translator, a then b."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Training set, licence and such, shown to clients as it stands."""
    acceleration: Acceleration | None = None
    """How Triton runs it on a GPU; None for onnxruntime's defaults."""
    versions: Mapping[int, VersionRecord] = field(default_factory=dict)
    """Published versions."""
    version_policy: VersionPolicy = PUBLISHED
    """Which of them are served."""
    canary: Mapping[int, float] = field(default_factory=dict)
    """Shares of the requests that name no version, by version; empty where all get the newest."""

    def __post_init__(self) -> None:
        for name in ("graph", "model", "role"):
            value = getattr(self, name)
            if not value or not all(c.isalnum() or c in "_-" for c in value):
                raise ManifestError(
                    f"{name} {value!r} must be letters, digits, '_' and '-' alone, as it names a folder"
                )
        if self.role not in self.roles:
            raise ManifestError(f"{self.graph}: role {self.role!r} is not among roles {list(self.roles)}")
        if self.max_batch_size < 1:
            raise ManifestError(f"{self.graph}: max_batch_size must be at least 1, got {self.max_batch_size}")
        if self.role == "denoiser" and self.sampling is None:
            raise ManifestError(
                f"{self.graph}: a denoiser needs `sampling`, its schedule and parameterization"
            )
        names = [spec.name for spec in (*self.inputs, *self.outputs)]
        if len(names) != len(set(names)):
            raise ManifestError(f"{self.graph}: two tensors have one name: {', '.join(names)}")
        if any(version < 1 for version in self.versions):
            raise ManifestError(f"{self.graph}: versions count from 1, got {sorted(self.versions)}")
        if any(not 0 <= share < math.inf for share in self.canary.values()):
            raise ManifestError(f"{self.graph}: shares of a canary are 0 or more, got {dict(self.canary)}")
        if self.canary and not any(self.canary.values()):
            raise ManifestError(f"{self.graph}: a canary gives some version a share above 0")
        unknown = set(self.tasks) - set(get_args(Task))
        if unknown:
            raise ManifestError(f"{self.graph}: unknown tasks {sorted(unknown)}")

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row's inputs and outputs; axes that are the client's to choose count as 1."""
        return sum(
            max(1, abs(math.prod(spec.shape))) * np.dtype(spec.dtype).itemsize
            for spec in (*self.inputs, *self.outputs)
        )

    @cached_property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of a row of each input; axes that are the client's to choose are negative."""
        return tuple(spec.shape for spec in self.inputs)

    @cached_property
    def dynamic(self) -> bool:
        """Whether the size of the picture is the client's to choose."""
        return any(axis < 0 for shape in self.row_shapes for axis in shape)

    def input(self, name: str) -> TensorSpec | None:
        """The input of that name, if the graph has it."""
        return self._by_name(self.inputs, name)

    def output(self, name: str) -> TensorSpec | None:
        """The output of that name, if the graph has it."""
        return self._by_name(self.outputs, name)

    @staticmethod
    def _by_name(specs: tuple[TensorSpec, ...], name: str) -> TensorSpec | None:
        for spec in specs:  # few, and asked for by every request
            if spec.name == name:
                return spec
        return None

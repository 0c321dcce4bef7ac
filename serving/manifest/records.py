"""What is recorded of one published version of a graph: its files, and how well they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.manifest.acceleration import Precision, Profile


@dataclass(frozen=True, kw_only=True)
class ProbeOutput:
    """One output, summed up."""

    rms: float
    """Root mean square of its elements."""
    projections: tuple[float, ...]
    """Its products with fixed random signs, over the root of the number of elements."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Inputs by their seed, and what came of them."""

    seed: int = 0
    """Seed of the inputs and of the signs."""
    rows: int = 2
    """Rows of the call."""
    tolerance: float = 0.02
    """Largest difference of any figure, as a share of the output's root mean square."""
    outputs: Mapping[str, ProbeOutput]
    """Every output by name."""

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.rows < 1 or not self.outputs:
            raise ValueError("a probe has outputs, a row or more, and a tolerance above 0")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Probe:
        """The probe of what `dataclasses.asdict` made of it."""
        outputs = {
            name: ProbeOutput(rms=output["rms"], projections=tuple(output["projections"]))
            for name, output in values["outputs"].items()
        }
        return cls(seed=values["seed"], rows=values["rows"], tolerance=values["tolerance"], outputs=outputs)


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """A TensorRT plan beside the model file of a version: for the GPU and TensorRT that built it alone."""

    sha256: str
    """Digest of the plan."""
    max_abs_error: float
    """Largest absolute difference to the model file beside it, on that GPU."""
    tensorrt: str
    """Version of TensorRT that built it."""
    gpu: str
    """GPU that it was built on."""
    profile: Profile
    """Shapes that it takes."""

    def __post_init__(self) -> None:
        if not isinstance(self.profile, Profile):
            object.__setattr__(self, "profile", Profile(**self.profile))


@dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """What is known of one published version of a graph."""

    sha256: str
    """Digest of the model file."""
    max_abs_error: float
    """Largest absolute difference to torch seen when it was exported; of a whole sampler in one graph, to the
    same steps one by one."""
    created: str = ""
    """When it was published, ISO 8601 in UTC."""
    min_rows: int = 1
    """Rows below which a batch is padded so that a row's result never depends on its batch mates."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Measured figures of the model, by name, as `atelier evaluate` found them."""
    probe: Probe | None = None
    """What it computed for fixed inputs, to be found again wherever it is loaded."""
    precision: Precision = "float32"
    """What the arithmetic of the file is done in."""
    relative_error: float = 0.0
    """Of lower precision: root mean square of the difference to torch on inputs that the graph really meets,
    as a share of the output's."""
    speedup: float = 1.0
    """Rows per second over those of the float32 graph, measured in the same run on the CPU that exported."""
    quality_change: Mapping[str, float] = field(default_factory=dict)
    """Measured figures less those of the float32 graphs, with the same seeds."""
    plan: PlanRecord | None = None
    """The TensorRT plan of this version, where one was built."""

    def __post_init__(self) -> None:
        if self.plan is not None and not isinstance(self.plan, PlanRecord):
            object.__setattr__(self, "plan", PlanRecord(**self.plan))

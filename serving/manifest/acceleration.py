"""What the configuration of a graph says of GPUs, in the words of Triton's onnxruntime backend.

`config.pbtxt` leaves the kind of the instances to Triton, which takes a GPU where there is one and the CPU
elsewhere, so one folder serves on both; accelerators are for instances on a GPU and mean nothing on a CPU.
Where a number of GPU instances is declared it demands a GPU, and `configs/cpu.pbtxt` beside it is what
`tritonserver --model-config-name=cpu` takes on a machine without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from serving.errors import one_of
from serving.manifest.tensors import TensorSpec

Accelerator = Literal["cuda", "tensorrt"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_MODES: dict[Precision, str] = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}


class AccelerationError(ValueError):
    """A declaration that cannot be: names the field and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The shapes that TensorRT builds for: it is fastest at `usual` and takes nothing outside the ends."""

    rows: tuple[int, int, int]
    """Least, usual and most rows."""
    sides: tuple[int, int, int] = (0, 0, 0)
    """Least, usual and greatest height and width of images of any size; zeros where sizes are fixed."""
    measured_on: str = ""
    """Device on which the usual rows were found to be the fastest; empty where they were only declared."""

    def __post_init__(self) -> None:
        for name in ("rows", "sides"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != 3 or list(values) != sorted(values) or min(values) < 0:
                raise AccelerationError(f"{name} of a profile are three rising numbers, got {list(values)}")
        if self.rows[0] < 1:
            raise AccelerationError(f"a profile has at least one row, got {self.rows[0]}")

    def shapes(self, specs: Sequence[TensorSpec]) -> tuple[dict[str, tuple[int, ...]], ...]:
        """Least, usual and greatest shape of every tensor by name, with the axis of rows."""
        return tuple(
            {
                spec.name: (rows, *(_side(side, spec) if axis == -1 else axis for axis in spec.shape))
                for spec in specs
            }
            for rows, side in zip(self.rows, self.sides, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """How a graph is run on a GPU."""

    accelerator: Accelerator
    """`cuda` is onnxruntime's own kernels, `tensorrt` compiles what it can and leaves it the rest."""
    precision: Precision = "float32"
    """What TensorRT may compute in; weights and interfaces stay as they are in the file."""
    profile: Profile
    """Shapes that engines are built for."""
    workspace_bytes: int = 1 << 30
    """Most GPU memory that building an engine may take."""
    engine_cache: str = "tensorrt_cache"
    """Folder where built engines are kept; one that is not absolute is in Triton's working directory."""
    instances: int = 0
    """Instances a GPU, which then is demanded; 0 leaves number and kind to Triton."""

    def __post_init__(self) -> None:
        if not isinstance(self.profile, Profile):
            object.__setattr__(self, "profile", Profile(**self.profile))
        if self.accelerator not in get_args(Accelerator):
            raise AccelerationError(
                f"accelerator {self.accelerator!r} is not one of {one_of(get_args(Accelerator))}"
            )
        if self.precision not in PRECISIONS:
            raise AccelerationError(f"precision {self.precision!r} is not one of {one_of(PRECISIONS)}")
        if self.accelerator == "cuda" and self.precision != "float32":
            raise AccelerationError(
                f"the cuda accelerator computes in what the graph holds: for {self.precision} take tensorrt, "
                "or export the graph in that precision"
            )
        if self.workspace_bytes < 1 or self.instances < 0:
            raise AccelerationError("workspace_bytes is at least 1 and instances at least 0")


def declare(config: Any, acceleration: Acceleration, inputs: Sequence[TensorSpec]) -> None:
    """Write accelerators and GPU instances into Triton's `ModelConfig`."""
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    if acceleration.accelerator == "tensorrt":
        tensorrt = accelerators.add(name="tensorrt")
        for key, value in _tensorrt(acceleration, inputs).items():
            tensorrt.parameters[key] = value
    # Without, onnxruntime rounds factors to 10 bits (TF32), which no export was compared with.
    accelerators.add(name="cuda").parameters["use_tf32"] = "0"
    if acceleration.instances:
        config.instance_group.add(kind="KIND_GPU", count=acceleration.instances)


def declare_cpu(config: Any) -> None:
    """Ask for the CPU in Triton's `ModelConfig`, whatever else is there."""
    config.instance_group.add(kind="KIND_CPU")


def declare_plan(config: Any, profile: Profile, versions: Sequence[int]) -> None:
    """Turn Triton's `ModelConfig` of a graph into that of its TensorRT plan, served in these versions.

    CUDA graphs are captured for the usual rows and for the most.
    """
    config.ClearField("backend")
    config.platform = "tensorrt_plan"
    config.default_model_filename = "model.plan"
    config.ClearField("version_policy")
    config.version_policy.specific.versions.extend(sorted(versions))
    config.instance_group.add(kind="KIND_GPU", count=1)
    cuda = config.optimization.cuda
    cuda.graphs = not any(profile.sides)
    if cuda.graphs:
        for rows in sorted(set(profile.rows[1:])):
            cuda.graph_spec.add(batch_size=rows)


def profile_text(shapes: dict[str, tuple[int, ...]]) -> str:
    """Shapes as onnxruntime's TensorRT provider reads them: `x:8x1x8x8,noise_level:8x1`."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _tensorrt(acceleration: Acceleration, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    least, usual, greatest = acceleration.profile.shapes(inputs)
    return {
        "precision_mode": _MODES[acceleration.precision],
        "max_workspace_size_bytes": str(acceleration.workspace_bytes),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": acceleration.engine_cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": acceleration.engine_cache,
        "trt_profile_min_shapes": profile_text(least),
        "trt_profile_opt_shapes": profile_text(usual),
        "trt_profile_max_shapes": profile_text(greatest),
    }


def _side(side: int, spec: TensorSpec) -> int:
    if not side:
        raise AccelerationError(
            f"tensor {spec.name!r} is of any size: give the profile its least, usual and greatest side"
        )
    return -(-side // spec.multiple_of) * spec.multiple_of

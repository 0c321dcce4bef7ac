"""The contract of a model repository: what one graph is, needs and gives.

A `Manifest` is rendered to the `config.pbtxt` of Triton and parsed back from it, or from the
`ModelConfig` message that Triton's gRPC port returns. What Triton has no field for stands in the
`parameters` of the configuration as flat `atelier.*` keys with string values (JSON where they are
not plain text), so a gateway that sees a bare Triton learns as much as one that reads the folder.

Conventions that every graph keeps:

- The first axis of every tensor is the batch; shapes here leave it out. `-1` is a dynamic axis.
- Images are float32, channels first, within `value_range`.
- Inputs by name: `latent` (drawn from a standard normal prior), `noise` (standard normal, zero for the
  mean), `class_id` (int64, shape [1]), `image`, and for denoisers `x` and `noise_level` (shape [1]).
- Outputs by role: `sample` of a generator or decoder, `prediction` of a denoiser, `mean` and
  `log_variance` of an encoder, `translated` of a translator.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving import version_policy
from serving.acceleration import (
    Acceleration,
    AccelerationError,
    Precision,
    Profile,
    declare,
    declare_cpu,
    declare_plan,
)
from serving.probe import Probe
from serving.version_policy import PUBLISHED, VersionPolicy

PREFIX = "atelier."

Dtype = Literal["float32", "int64"]
Task = Literal["generate", "translate", "inpaint", "upscale", "denoise", "encode", "decode", "score"]
Prediction = Literal["epsilon", "x0", "v", "edm", "flow"]
Schedule = Literal["vp_linear", "vp_cosine", "edm", "flow"]

_TRITON_DTYPES: dict[Dtype, str] = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
_DTYPES: dict[str, Dtype] = {triton: ours for ours, triton in _TRITON_DTYPES.items()}

LEAST_TIMESTEPS: dict[Schedule, int] = {"vp_linear": 21, "vp_cosine": 2}
"""Timesteps that a variance-preserving schedule needs: with 20 the last of the linear betas is 1, and nothing
is left of the image."""


class ManifestError(ValueError):
    """A configuration that is not a manifest of ours: names the graph, the key and the remedy."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    """Name of the tensor in the ONNX graph."""
    dtype: Dtype = "float32"
    """Element type."""
    shape: tuple[int, ...]
    """Shape of one row, without the batch axis; -1 is a dynamic axis."""
    multiple_of: int = 1
    """What every dynamic axis must be divisible by."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ManifestError("a tensor has no name: give it the name it bears in the ONNX graph")
        if self.dtype not in _TRITON_DTYPES:
            raise ManifestError(f"tensor {self.name!r} has dtype {self.dtype!r}, not one of float32, int64")
        if any(axis == 0 or axis < -1 for axis in self.shape):
            raise ManifestError(
                f"tensor {self.name!r} has shape {list(self.shape)}: axes are positive, or -1"
            )
        if self.multiple_of < 1:
            raise ManifestError(f"tensor {self.name!r} has multiple_of {self.multiple_of}: it is 1 or more")


@dataclass(frozen=True, kw_only=True)
class Parameterization:
    """What a denoiser predicts, and so how its output becomes the denoised image."""

    prediction: Prediction
    """`epsilon` (Ho et al. 2020), `x0`, `v` (Salimans and Ho 2022), `edm` (Karras et al. 2022) or `flow`
    (rectified flow, Liu et al. 2023)."""
    sigma_data: float = 0.5
    """Standard deviation of the data, for `edm` preconditioning."""

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise ManifestError(
                f"parameterization {self.prediction!r} is not one of {', '.join(get_args(Prediction))}"
            )


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise levels a denoiser was trained on, as sigma = noise / signal amplitude."""

    kind: Schedule
    """`vp_linear` and `vp_cosine` are variance preserving with discrete timesteps; `edm` has noise levels
    alone; `flow` mixes image and noise linearly, sigma = t / (1 - t)."""
    sigma_min: float
    """Least noise level."""
    sigma_max: float
    """Greatest noise level, from which sampling starts."""
    rho: float = 7.0
    """Exponent of the Karras spacing, for `edm`."""
    timesteps: int = 1000
    """Number of training timesteps, for the variance-preserving kinds."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Schedule):
            raise ManifestError(f"noise schedule {self.kind!r} is not one of {', '.join(get_args(Schedule))}")
        least = LEAST_TIMESTEPS.get(self.kind, 0)
        if self.timesteps < least:
            raise ManifestError(
                f"noise schedule {self.kind!r} needs at least {least} timesteps, got {self.timesteps}: train "
                f"and export it again with more, 1000 as a rule"
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ManifestError(
                f"noise schedule needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw images from a denoiser."""

    parameterization: Parameterization
    """How the prediction is read."""
    schedule: NoiseSchedule
    """The noise levels it knows."""
    sampler: str
    """Default sampler, by its name in `serving.samplers`."""
    steps: int
    """Default number of steps."""
    guidance_scale: float = 1.0
    """Default scale of classifier-free guidance; 1 is none."""
    max_steps: int = 1000
    """Most steps that a request may ask for."""
    clip_denoised: bool = False
    """Whether the denoised image is clipped to the value range at each step."""
    guidance_interval: tuple[float, float] | None = None
    """Noise levels above the first and up to the second alone are guided (Kynkäänniemi et al. 2024)."""
    distilled: bool = False
    """Whether the denoised image is the end of the flow rather than the mean of all ends, so that few-step
    samplers, which jump to it, draw the data."""

    def __post_init__(self) -> None:
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high:
                raise ManifestError(f"guidance_interval needs 0 <= low < high in sigma, got {low} and {high}")
            object.__setattr__(self, "guidance_interval", (low, high))


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

    def input(self, name: str) -> TensorSpec | None:
        """The input of that name, if the graph has it."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """The output of that name, if the graph has it."""
        return next((spec for spec in self.outputs if spec.name == name), None)


def to_config(manifest: Manifest) -> Any:
    """The manifest as Triton's `ModelConfig` message."""
    config = _portable(manifest)
    if manifest.acceleration:
        declare(config, manifest.acceleration, manifest.inputs)
    return config


def _portable(manifest: Manifest) -> Any:
    """The configuration without a word of devices."""
    config = model_config_pb2.ModelConfig(
        name=manifest.graph, backend="onnxruntime", max_batch_size=manifest.max_batch_size
    )
    for specs, tensors in ((manifest.inputs, config.input), (manifest.outputs, config.output)):
        for spec in specs:
            tensor = tensors.add()
            tensor.name = spec.name
            tensor.data_type = model_config_pb2.DataType.Value(_TRITON_DTYPES[spec.dtype])
            tensor.dims.extend(spec.shape)
    config.dynamic_batching.SetInParent()
    version_policy.write(manifest.version_policy, config, manifest.versions)
    for key, value in _parameters(manifest).items():
        config.parameters[PREFIX + key].string_value = value
    return config


def render(manifest: Manifest) -> str:
    """The manifest as the text of a `config.pbtxt`."""
    return _text(to_config(manifest))


def render_variants(manifest: Manifest) -> dict[str, str]:
    """What Triton takes in place of `config.pbtxt` under `--model-config-name`, by that name.

    `cpu` where the graph says anything of GPUs, `tensorrt` where a version has a plan.
    """
    variants = {}
    plans = {version: record.plan for version, record in manifest.versions.items() if record.plan}
    if manifest.acceleration or plans:
        config = _portable(manifest)
        declare_cpu(config)
        variants["cpu"] = _text(config)
    if plans:
        config = _portable(manifest)
        declare_plan(config, plans[max(plans)].profile, list(plans))
        variants["tensorrt"] = _text(config)
    return variants


def _text(config: Any) -> str:
    header = "# Written by `atelier export`; change the recipe and export again rather than this file.\n"
    return header + str(text_format.MessageToString(config, as_utf8=True))


def parse(text: str, graph: str) -> Manifest:
    """The manifest in the text of the `config.pbtxt` of `graph`.

    Raises `ManifestError` where the text is not a configuration or lacks the `atelier.*` keys.
    """
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except (text_format.ParseError, ValueError) as error:
        raise ManifestError(f"{graph}: config.pbtxt does not parse: {error}") from error
    if not config.name:
        config.name = graph
    if not (config.backend or config.platform):
        raise ManifestError(f"{graph}: config.pbtxt names no backend, its last line: it was copied in part")
    if config.name != graph:
        raise ManifestError(f"{graph}: config.pbtxt is named {config.name!r}; it must be the folder's name")
    return from_config(config)


def from_config(config: Any) -> Manifest:
    """The manifest in Triton's `ModelConfig` message; raises `ManifestError` for a model that is not ours."""
    values = {
        key.removeprefix(PREFIX): parameter.string_value
        for key, parameter in config.parameters.items()
        if key.startswith(PREFIX)
    }
    if "model" not in values:
        raise ManifestError(f"{config.name}: no {PREFIX}model parameter: not a graph that atelier published")
    try:
        return _from_values(config, values)
    except ManifestError as error:
        if config.name in str(error):
            raise
        raise ManifestError(f"{config.name}: {error}") from error
    except AccelerationError as error:
        raise ManifestError(f"{config.name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{config.name}: cannot read the {PREFIX}* parameters: {error!r}") from error


def _parameters(manifest: Manifest) -> dict[str, str]:
    values = {
        "model": manifest.model,
        "role": manifest.role,
        "family": manifest.family,
        "task": json.dumps(manifest.tasks),
        "roles": json.dumps(manifest.roles),
        "value_range": json.dumps(manifest.value_range),
        "levels": str(manifest.levels),
    }
    if manifest.class_labels:
        values["class_labels"] = json.dumps(manifest.class_labels, ensure_ascii=False)
    if manifest.domains:
        values["domains"] = json.dumps(manifest.domains, ensure_ascii=False)
    if manifest.sampling:
        sampling = dataclasses.asdict(manifest.sampling)
        values["parameterization"] = json.dumps(sampling.pop("parameterization"))
        values["schedule"] = json.dumps(sampling.pop("schedule"))
        values["sampling"] = json.dumps(sampling)
    if manifest.metadata:
        values["metadata"] = json.dumps(dict(manifest.metadata), ensure_ascii=False, sort_keys=True)
    tensors = (*manifest.inputs, *manifest.outputs)
    multiples = {spec.name: spec.multiple_of for spec in tensors if spec.multiple_of != 1}
    if multiples:
        values["multiple_of"] = json.dumps(multiples)
    if manifest.acceleration:
        values["acceleration"] = json.dumps(dataclasses.asdict(manifest.acceleration), sort_keys=True)
    if not manifest.version_policy.specific:
        values["version_policy"] = str(manifest.version_policy)
    if manifest.canary:
        values["canary"] = json.dumps({str(version): share for version, share in manifest.canary.items()})
    for version, record in sorted(manifest.versions.items()):
        values[f"version.{version}"] = json.dumps(_plain(record), sort_keys=True)
    return values


def _plain(record: VersionRecord) -> dict[str, Any]:
    """The record as JSON takes it; what is said of probes, low precision and plans only where there is
    something."""
    values = dataclasses.asdict(record)
    plain = VersionRecord(sha256="", max_abs_error=0.0)
    optional = ("probe", "precision", "relative_error", "speedup", "quality_change", "plan")
    return {
        name: value for name, value in values.items() if name not in optional or value != getattr(plain, name)
    }


def _record(text: str) -> VersionRecord:
    """A record, without what a newer `atelier export` may say in it."""
    known = {each.name for each in dataclasses.fields(VersionRecord)}
    said = {name: value for name, value in json.loads(text).items() if name in known}
    if "probe" in said:
        said["probe"] = Probe.from_json(said["probe"])
    return VersionRecord(**said)


def _from_values(config: Any, values: Mapping[str, str]) -> Manifest:
    multiples = json.loads(values.get("multiple_of", "{}"))
    sampling = None
    if "sampling" in values:
        sampling = Sampling(
            parameterization=Parameterization(**json.loads(values["parameterization"])),
            schedule=NoiseSchedule(**json.loads(values["schedule"])),
            **json.loads(values["sampling"]),
        )
    low, high = json.loads(values["value_range"])
    versions = {
        int(key.removeprefix("version.")): _record(value)
        for key, value in values.items()
        if key.startswith("version.")
    }
    return Manifest(
        graph=config.name,
        model=values["model"],
        role=values["role"],
        family=values["family"],
        tasks=tuple(json.loads(values["task"])),
        roles=tuple(json.loads(values["roles"])),
        inputs=tuple(_spec(tensor, multiples) for tensor in config.input),
        outputs=tuple(_spec(tensor, multiples) for tensor in config.output),
        max_batch_size=config.max_batch_size,
        value_range=(low, high),
        class_labels=tuple(json.loads(values.get("class_labels", "[]"))),
        sampling=sampling,
        levels=int(values["levels"]),
        domains=tuple(json.loads(values.get("domains", "[]"))),
        metadata=json.loads(values.get("metadata", "{}")),
        acceleration=(
            Acceleration(**json.loads(values["acceleration"])) if "acceleration" in values else None
        ),
        versions=versions,
        version_policy=version_policy.read(config, values.get("version_policy"), versions),
        canary={int(version): share for version, share in json.loads(values.get("canary", "{}")).items()},
    )


def _spec(tensor: Any, multiples: Mapping[str, int]) -> TensorSpec:
    triton_dtype = model_config_pb2.DataType.Name(tensor.data_type)
    if triton_dtype not in _DTYPES:
        raise ManifestError(f"tensor {tensor.name!r} is {triton_dtype}, not one of {', '.join(_DTYPES)}")
    return TensorSpec(
        name=tensor.name,
        dtype=_DTYPES[triton_dtype],
        shape=tuple(tensor.dims),
        multiple_of=multiples.get(tensor.name, 1),
    )

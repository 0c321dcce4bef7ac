"""A manifest as Triton's `config.pbtxt`, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.manifest import version_policy
from serving.manifest.acceleration import (
    Acceleration,
    AccelerationError,
    declare,
    declare_cpu,
    declare_plan,
)
from serving.manifest.graph import Manifest
from serving.manifest.problems import ManifestError
from serving.manifest.records import Probe, VersionRecord
from serving.manifest.sampling import NoiseSchedule, Parameterization, Sampling
from serving.manifest.tensors import TRITON_DTYPES, Dtype, TensorSpec

PREFIX = "atelier."

_DTYPES: dict[str, Dtype] = {triton: ours for ours, triton in TRITON_DTYPES.items()}


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
            tensor.data_type = model_config_pb2.DataType.Value(TRITON_DTYPES[spec.dtype])
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

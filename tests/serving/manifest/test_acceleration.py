"""What a configuration says of GPUs is what Triton's backends read, and it comes back as it went."""

from __future__ import annotations

import dataclasses
import json

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.manifest import (
    Manifest,
    ManifestError,
    NoiseSchedule,
    Parameterization,
    PlanRecord,
    Sampling,
    TensorSpec,
    VersionRecord,
    from_config,
    parse,
    render,
    render_variants,
    to_config,
)
from serving.manifest.acceleration import PRECISIONS, Acceleration, AccelerationError, Profile, profile_text
from serving.manifest.version_policy import VersionPolicy

PROFILE = Profile(rows=(1, 16, 64))
INPUTS = (
    TensorSpec(name="x", shape=(1, 8, 8)),
    TensorSpec(name="noise_level", shape=(1,)),
    TensorSpec(name="class_id", dtype="int64", shape=(1,)),
)


def denoiser(acceleration: Acceleration | None, **fields: object) -> Manifest:
    values = {
        "graph": "tiny_denoiser",
        "model": "tiny",
        "role": "denoiser",
        "family": "diffusion",
        "tasks": ("generate",),
        "roles": ("denoiser",),
        "inputs": INPUTS,
        "outputs": (TensorSpec(name="prediction", shape=(1, 8, 8)),),
        "sampling": Sampling(
            parameterization=Parameterization(prediction="flow"),
            schedule=NoiseSchedule(kind="flow", sigma_min=0.001, sigma_max=999.0),
            sampler="euler",
            steps=9,
        ),
        "acceleration": acceleration,
        "versions": {1: VersionRecord(sha256="0" * 64, max_abs_error=1e-6)},
    }
    return Manifest(**{**values, **fields})


def plan(**fields: object) -> PlanRecord:
    values = {
        "sha256": "1" * 64,
        "max_abs_error": 1e-3,
        "tensorrt": "11.4",
        "gpu": "NVIDIA L4",
        "profile": PROFILE,
    }
    return PlanRecord(**{**values, **fields})


def read(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("instances", [0, 2])
def test_a_manifest_with_acceleration_survives_the_text_of_a_configuration(
    precision: str, instances: int
) -> None:
    acceleration = Acceleration(
        accelerator="tensorrt",
        precision=precision,
        profile=Profile(rows=(2, 8, 32), measured_on="NVIDIA H200"),
        workspace_bytes=123_456,
        engine_cache="/var/cache/engines",
        instances=instances,
    )
    manifest = denoiser(acceleration)
    assert parse(render(manifest), "tiny_denoiser") == manifest
    for text in render_variants(manifest).values():
        assert parse(text, "tiny_denoiser") == manifest


def test_tensorrt_is_told_precision_workspace_cache_and_the_shapes_of_every_input() -> None:
    acceleration = Acceleration(
        accelerator="tensorrt", precision="float16", profile=PROFILE, workspace_bytes=1 << 31
    )
    config = read(render(denoiser(acceleration)))
    tensorrt, cuda = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert tensorrt.name == "tensorrt"
    assert dict(tensorrt.parameters) == {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(1 << 31),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "tensorrt_cache",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "tensorrt_cache",
        "trt_profile_min_shapes": "x:1x1x8x8,noise_level:1x1,class_id:1x1",
        "trt_profile_opt_shapes": "x:16x1x8x8,noise_level:16x1,class_id:16x1",
        "trt_profile_max_shapes": "x:64x1x8x8,noise_level:64x1,class_id:64x1",
    }
    assert (cuda.name, dict(cuda.parameters)) == ("cuda", {"use_tf32": "0"})
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator


def test_the_kind_of_instances_is_left_to_triton_unless_a_number_is_demanded() -> None:
    acceleration = Acceleration(accelerator="cuda", profile=PROFILE)
    assert not to_config(denoiser(acceleration)).instance_group
    (group,) = to_config(denoiser(dataclasses.replace(acceleration, instances=3))).instance_group
    assert (group.kind, group.count) == (model_config_pb2.ModelInstanceGroup.KIND_GPU, 3)


def test_the_variant_for_the_cpu_says_nothing_of_gpus() -> None:
    manifest = denoiser(Acceleration(accelerator="tensorrt", profile=PROFILE, instances=1))
    assert list(render_variants(manifest)) == ["cpu"]
    config = read(render_variants(manifest)["cpu"])
    (group,) = config.instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert not config.HasField("optimization")
    assert config.backend == "onnxruntime"


def test_a_manifest_that_says_nothing_of_gpus_has_no_variants_and_the_text_it_always_had() -> None:
    manifest = denoiser(None)
    assert render_variants(manifest) == {}
    record = json.loads(to_config(manifest).parameters["atelier.version.1"].string_value)
    assert set(record) == {"sha256", "max_abs_error", "created", "min_rows", "quality"}
    assert "acceleration" not in render(manifest)


def test_versions_with_a_plan_are_served_by_the_variant_for_tensorrt() -> None:
    record = VersionRecord(sha256="0" * 64, max_abs_error=1e-6)
    manifest = denoiser(None, versions={1: record, 2: dataclasses.replace(record, plan=plan())})
    variants = render_variants(manifest)
    assert list(variants) == ["cpu", "tensorrt"]
    config = read(variants["tensorrt"])
    assert (config.platform, config.backend, config.default_model_filename) == (
        "tensorrt_plan",
        "",
        "model.plan",
    )
    assert list(config.version_policy.specific.versions) == [2]
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert config.optimization.cuda.graphs
    assert [spec.batch_size for spec in config.optimization.cuda.graph_spec] == [16, 64]
    served = from_config(config)
    assert served.version_policy == VersionPolicy(specific=(2,))
    served = dataclasses.replace(served, version_policy=manifest.version_policy)
    assert served == manifest == parse(render(manifest), "tiny_denoiser")


def test_a_plan_for_images_of_any_size_captures_no_graphs() -> None:
    record = VersionRecord(
        sha256="0" * 64,
        max_abs_error=1e-6,
        plan=plan(profile=Profile(rows=(1, 4, 8), sides=(16, 32, 128))),
    )
    config = read(render_variants(denoiser(None, versions={1: record}))["tensorrt"])
    assert not config.optimization.cuda.graphs
    assert not config.optimization.cuda.graph_spec


def test_sides_are_rounded_up_to_what_a_tensor_is_divisible_by() -> None:
    image = TensorSpec(name="image", shape=(3, -1, -1), multiple_of=4)
    profile = Profile(rows=(1, 2, 4), sides=(15, 32, 130))
    least, usual, greatest = profile.shapes([image])
    assert profile_text(least) == "image:1x3x16x16"
    assert profile_text(usual) == "image:2x3x32x32"
    assert profile_text(greatest) == "image:4x3x132x132"


def test_a_tensor_of_any_size_needs_sides() -> None:
    image = TensorSpec(name="image", shape=(3, -1, -1), multiple_of=4)
    manifest = denoiser(Acceleration(accelerator="tensorrt", profile=PROFILE), inputs=(image,))
    with pytest.raises(AccelerationError, match=r"'image' is of any size: give the profile"):
        to_config(manifest)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accelerator": "openvino"}, "accelerator 'openvino' is not one of cuda, tensorrt"),
        ({"precision": "half"}, "precision 'half' is not one of float32, float16"),
        ({"accelerator": "cuda", "precision": "float16"}, "for float16 take tensorrt, or export the graph"),
        ({"instances": -1}, "instances at least 0"),
        ({"profile": {"rows": (4, 2, 8)}}, r"rows of a profile are three rising numbers, got \[4, 2, 8\]"),
        ({"profile": {"rows": (0, 2, 8)}}, "at least one row, got 0"),
    ],
)
def test_what_cannot_be_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(AccelerationError, match=message):
        Acceleration(**{"accelerator": "tensorrt", "profile": PROFILE, **fields})


def test_a_configuration_with_an_acceleration_that_cannot_be_names_its_graph() -> None:
    text = render(denoiser(Acceleration(accelerator="tensorrt", profile=PROFILE)))
    with pytest.raises(ManifestError, match="tiny_denoiser: accelerator 'openvino' is not one of"):
        parse(text.replace('accelerator\\": \\"tensorrt', 'accelerator\\": \\"openvino'), "tiny_denoiser")

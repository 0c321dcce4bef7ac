"""What onnxruntime is asked for, by the settings and by what the manifest knows of a graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.backends.providers import CPU, CUDA, TENSORRT, Choice, engine_folder, gpu_providers
from serving.errors import Code, ServingError
from serving.manifest import Manifest, TensorSpec, VersionRecord
from serving.manifest.acceleration import Acceleration, Profile

BUILD = (TENSORRT, CUDA, CPU)
RECORD = VersionRecord(sha256="abcdef" * 10, max_abs_error=0.0)
GRAPH = Manifest(
    graph="tiny",
    model="tiny",
    role="generator",
    family="gan",
    tasks=("generate",),
    roles=("generator",),
    inputs=(TensorSpec(name="latent", shape=(4,)),),
    outputs=(TensorSpec(name="sample", shape=(1, 2, 2)),),
    max_batch_size=32,
    versions={1: RECORD, 2: dataclasses.replace(RECORD, min_rows=2, precision="int8")},
)


def asked(choice: Choice, version: int = 1, manifest: Manifest = GRAPH) -> dict[str, str]:
    return gpu_providers(choice, manifest, version, graphs=False)[0][1]


@pytest.mark.parametrize(
    ("choice", "known", "expected"),
    [
        (Choice(device="auto"), BUILD, True),
        (Choice(device="auto"), (CPU,), False),
        (Choice(device="cpu"), BUILD, False),
        (Choice(device="cuda"), BUILD, True),
        (Choice(device="auto", accelerator="tensorrt"), BUILD, True),
    ],
)
def test_a_gpu_is_tried_where_it_may_be(choice: Choice, known: tuple[str, ...], expected: bool) -> None:
    assert choice.gpu(known) is expected


@pytest.mark.parametrize(
    ("choice", "known", "remedy"),
    [
        (Choice(device="cuda"), (CPU,), "or set device to auto or cpu"),
        (Choice(device="auto", accelerator="tensorrt"), (CUDA, CPU), "or set accelerator to none"),
        (Choice(device="cpu", accelerator="tensorrt"), BUILD, "or accelerator to none"),
    ],
)
def test_what_cannot_be_had_is_unavailable_with_its_remedy(
    choice: Choice, known: tuple[str, ...], remedy: str
) -> None:
    with pytest.raises(ServingError) as error:
        choice.gpu(known)
    assert error.value.code == Code.UNAVAILABLE
    assert error.value.message.endswith(remedy)


@pytest.mark.parametrize(
    ("choice", "demanded"),
    [
        (Choice(device="auto"), None),
        (Choice(device="cuda"), CUDA),
        (Choice(device="auto", accelerator="tensorrt"), TENSORRT),
        (Choice(device="cuda", accelerator="tensorrt"), TENSORRT),
    ],
)
def test_what_was_asked_for_by_name_is_demanded(choice: Choice, demanded: str | None) -> None:
    assert choice.demanded == demanded


def test_a_gpu_computes_as_exactly_as_the_export_was_compared_unless_told_otherwise() -> None:
    assert asked(Choice())["use_tf32"] == "0"
    assert asked(Choice(tf32=True))["use_tf32"] == "1"


def test_cuda_graphs_are_asked_of_cuda_alone() -> None:
    with_graphs = gpu_providers(Choice(), GRAPH, 1, graphs=True)
    assert [name for name, _ in with_graphs] == [CUDA, CPU]
    assert with_graphs[0][1]["enable_cuda_graph"] == "1"
    assert "enable_cuda_graph" not in asked(Choice())


def test_tensorrt_stands_first_and_leaves_the_rest_to_cuda() -> None:
    providers = gpu_providers(Choice(accelerator="tensorrt"), GRAPH, 1, graphs=False)
    assert [name for name, _ in providers] == [TENSORRT, CUDA, CPU]


def test_engines_are_built_for_all_rows_and_kept_apart_by_version_and_content(tmp_path: Path) -> None:
    choice = Choice(accelerator="tensorrt", engine_cache=tmp_path)
    options = asked(choice, version=2)
    assert options["trt_profile_min_shapes"] == "latent:2x4"
    assert options["trt_profile_opt_shapes"] == options["trt_profile_max_shapes"] == "latent:32x4"
    assert options["trt_engine_cache_path"] == str(tmp_path / "tiny" / "2-abcdefabcdef")
    assert engine_folder(gpu_providers(choice, GRAPH, 2, graphs=False)) == tmp_path / "tiny/2-abcdefabcdef"
    assert engine_folder(gpu_providers(Choice(), GRAPH, 2, graphs=False)) is None


def test_the_profile_that_the_manifest_declares_is_used() -> None:
    declared = Acceleration(accelerator="tensorrt", profile=Profile(rows=(1, 8, 16)))
    options = asked(
        Choice(accelerator="tensorrt"), manifest=dataclasses.replace(GRAPH, acceleration=declared)
    )
    assert options["trt_profile_opt_shapes"] == "latent:8x4"
    assert options["trt_profile_max_shapes"] == "latent:16x4"


def test_images_of_any_size_have_no_profile_unless_one_is_declared() -> None:
    image = TensorSpec(name="image", shape=(3, -1, -1), multiple_of=4)
    manifest = dataclasses.replace(GRAPH, inputs=(image,))
    assert not [
        name for name in asked(Choice(accelerator="tensorrt"), manifest=manifest) if "profile" in name
    ]


def test_tensorrt_may_use_the_precision_that_the_graph_holds() -> None:
    choice = Choice(accelerator="tensorrt")
    assert asked(choice, version=2)["trt_int8_enable"] == "1"
    assert not [name for name in asked(choice) if name.endswith(("fp16_enable", "int8_enable"))]

"""A manifest survives Triton's own protobuf, and what is not a manifest says why."""

from __future__ import annotations

import dataclasses

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from serving.manifest import (
    Manifest,
    ManifestError,
    NoiseSchedule,
    Parameterization,
    Sampling,
    TensorSpec,
    VersionRecord,
    from_config,
    parse,
    render,
    to_config,
)

CLASS_ID = TensorSpec(name="class_id", dtype="int64", shape=(1,))
SAMPLE = TensorSpec(name="sample", shape=(1, 32, 32))
RECORD = VersionRecord(
    sha256="0" * 64,
    max_abs_error=3.7e-6,
    created="2025-01-02T03:04:05Z",
    min_rows=2,
    quality={"frechet_distance": 0.0081, "accuracy": 0.994},
)


def generator() -> Manifest:
    return Manifest(
        graph="digits_gan",
        model="digits_gan",
        role="generator",
        family="gan",
        tasks=("generate",),
        roles=("generator",),
        inputs=(TensorSpec(name="latent", shape=(64,)), CLASS_ID),
        outputs=(SAMPLE,),
        class_labels=("zero", "one", "zwölf", '"quoted"', "⑫ 🎨"),
        levels=17,
        metadata={"licence": "CC BY 4.0", "paper": "Huang et al.\n2024"},
        versions={1: RECORD, 12: dataclasses.replace(RECORD, quality={})},
    )


def encoder() -> Manifest:
    return Manifest(
        graph="digits_vae_encoder",
        model="digits_vae",
        role="encoder",
        family="vae",
        tasks=("generate", "encode", "decode"),
        roles=("decoder", "encoder"),
        inputs=(TensorSpec(name="image", shape=(1, 32, 32)), CLASS_ID),
        outputs=(TensorSpec(name="mean", shape=(16,)), TensorSpec(name="log_variance", shape=(16,))),
        max_batch_size=128,
    )


def decoder() -> Manifest:
    return Manifest(
        graph="digits_vae_decoder",
        model="digits_vae",
        role="decoder",
        family="vae",
        tasks=("generate", "encode", "decode"),
        roles=("decoder", "encoder"),
        inputs=(TensorSpec(name="latent", shape=(16,)), TensorSpec(name="noise", shape=(1, 8, 8)), CLASS_ID),
        outputs=(SAMPLE,),
        value_range=(0.0, 1.0),
    )


def translator() -> Manifest:
    return Manifest(
        graph="shapes_cyclegan_a_to_b",
        model="shapes_cyclegan",
        role="a_to_b",
        family="cyclegan",
        tasks=("translate",),
        roles=("a_to_b", "b_to_a"),
        inputs=(TensorSpec(name="image", shape=(3, -1, -1), multiple_of=4),),
        outputs=(TensorSpec(name="translated", shape=(3, -1, -1), multiple_of=4),),
        domains=("plain", "striped"),
    )


def denoiser() -> Manifest:
    return Manifest(
        graph="shapes_unet",
        model="shapes_unet",
        role="denoiser",
        family="diffusion",
        tasks=("generate", "inpaint"),
        roles=("denoiser",),
        inputs=(
            TensorSpec(name="x", shape=(3, 32, 32)),
            TensorSpec(name="noise_level", shape=(1,)),
            CLASS_ID,
        ),
        outputs=(TensorSpec(name="prediction", shape=(3, 32, 32)),),
        sampling=Sampling(
            parameterization=Parameterization(prediction="edm", sigma_data=0.7),
            schedule=NoiseSchedule(kind="edm", sigma_min=0.002, sigma_max=80.0),
            sampler="heun",
            steps=18,
            guidance_scale=2.0,
            clip_denoised=True,
        ),
    )


EVERY_KIND = pytest.mark.parametrize(
    "manifest", [generator(), encoder(), decoder(), translator(), denoiser()]
)


@EVERY_KIND
def test_a_manifest_comes_back_from_its_config_pbtxt(manifest: Manifest) -> None:
    assert parse(render(manifest), manifest.graph) == manifest


@EVERY_KIND
def test_a_manifest_comes_back_from_the_model_config_that_triton_sends(manifest: Manifest) -> None:
    sent = model_config_pb2.ModelConfig.FromString(to_config(manifest).SerializeToString())
    # What Triton adds to a configuration before it tells anybody of it.
    sent.instance_group.add(name=manifest.graph, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
    sent.platform = "onnxruntime_onnx"
    sent.default_model_filename = "model.onnx"
    assert from_config(sent) == manifest


@EVERY_KIND
def test_a_config_pbtxt_is_what_triton_reads(manifest: Manifest) -> None:
    config = text_format.Parse(render(manifest), model_config_pb2.ModelConfig())
    assert config.name == manifest.graph
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == manifest.max_batch_size
    assert config.HasField("dynamic_batching")
    assert [tuple(tensor.dims) for tensor in config.input] == [spec.shape for spec in manifest.inputs]
    assert {tensor.name: tensor.data_type for tensor in config.input} == {
        spec.name: model_config_pb2.TYPE_INT64 if spec.dtype == "int64" else model_config_pb2.TYPE_FP32
        for spec in manifest.inputs
    }


def test_what_triton_has_no_field_for_stands_under_flat_keys() -> None:
    parameters = json_format.MessageToDict(to_config(denoiser()))["parameters"]
    assert parameters["atelier.model"] == {"stringValue": "shapes_unet"}
    assert parameters["atelier.role"] == {"stringValue": "denoiser"}
    assert all(key.startswith("atelier.") for key in parameters)


def test_labels_are_readable_in_the_file() -> None:
    assert "⑫ 🎨" in render(generator())


def test_rendering_twice_gives_the_same_text() -> None:
    again = dataclasses.replace(generator(), versions=dict(reversed(generator().versions.items())))
    assert render(again) == render(generator())


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
FIGURES = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=20)
RECORDS = st.builds(
    VersionRecord,
    sha256=TEXTS,
    max_abs_error=FIGURES,
    created=TEXTS,
    min_rows=st.integers(1, 8),
    quality=st.dictionaries(TEXTS, FIGURES, max_size=3),
)
SAMPLINGS = st.builds(
    Sampling,
    parameterization=st.builds(
        Parameterization,
        prediction=st.sampled_from(["epsilon", "x0", "v", "edm", "flow"]),
        sigma_data=FIGURES,
    ),
    schedule=st.builds(
        NoiseSchedule,
        kind=st.sampled_from(["vp_linear", "vp_cosine", "edm", "flow"]),
        sigma_min=st.floats(1e-6, 1.0),
        sigma_max=st.floats(1.5, 1e6),
        rho=FIGURES,
        timesteps=st.integers(21, 10_000),
    ),
    sampler=TEXTS,
    steps=st.integers(1, 1000),
    guidance_scale=FIGURES,
    max_steps=st.integers(1, 1000),
    clip_denoised=st.booleans(),
    guidance_interval=st.none() | st.tuples(st.floats(0, 1), st.floats(2, 100)),
    distilled=st.booleans(),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(st.text(min_size=1, max_size=10), min_size=2, max_size=5, unique=True))
    tensors = [
        TensorSpec(
            name=name,
            dtype=draw(st.sampled_from(["float32", "int64"])),
            shape=tuple(draw(st.lists(st.just(-1) | st.integers(1, 4096), max_size=4))),
            multiple_of=draw(st.integers(1, 64)),
        )
        for name in names
    ]
    cut = draw(st.integers(1, len(tensors) - 1))
    roles = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    return Manifest(
        graph=draw(NAMES),
        model=draw(NAMES),
        role=draw(st.sampled_from(roles)),
        family=draw(TEXTS),
        tasks=tuple(draw(st.lists(st.sampled_from(["generate", "translate", "score"]), max_size=3))),
        roles=tuple(roles),
        inputs=tuple(tensors[:cut]),
        outputs=tuple(tensors[cut:]),
        max_batch_size=draw(st.integers(1, 2**31 - 1)),
        value_range=(draw(FIGURES), draw(FIGURES)),
        class_labels=tuple(draw(st.lists(TEXTS, max_size=4))),
        sampling=draw(SAMPLINGS),
        levels=draw(st.integers(2, 65_536)),
        domains=tuple(draw(st.lists(TEXTS, max_size=2))),
        metadata=draw(st.dictionaries(TEXTS, TEXTS, max_size=4)),
        versions=draw(st.dictionaries(st.integers(1, 10_000), RECORDS, max_size=3)),
    )


@settings(max_examples=150, deadline=None)
@given(manifests())
def test_any_manifest_comes_back_from_text_and_from_bytes(manifest: Manifest) -> None:
    assert parse(render(manifest), manifest.graph) == manifest
    sent = model_config_pb2.ModelConfig.FromString(to_config(manifest).SerializeToString())
    assert from_config(sent) == manifest


# Protobuf unescapes strings by Python's own codec, which deprecates escapes that it does not know.
@pytest.mark.filterwarnings("ignore:.*invalid escape sequence:DeprecationWarning")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_config_is_a_manifest_or_a_manifest_error(data: st.DataObject) -> None:
    text = render(denoiser())
    cut = data.draw(st.integers(0, len(text)))
    junk = data.draw(st.text(max_size=5))
    damaged, message = _manifest_or_message(text[:cut] + junk + text[cut + len(junk) :])
    assert isinstance(damaged, Manifest) or "shapes_unet" in message


def _manifest_or_message(text: str) -> tuple[Manifest | None, str]:
    try:
        return parse(text, "shapes_unet"), ""
    except ManifestError as error:
        return None, str(error)


def test_a_config_that_does_not_parse_is_named() -> None:
    with pytest.raises(ManifestError, match=r"shapes_unet: config\.pbtxt does not parse: 1:"):
        parse("not a configuration", "shapes_unet")


def test_a_model_that_atelier_did_not_publish_is_said_to_be_so() -> None:
    with pytest.raises(ManifestError, match=r"resnet: no atelier\.model parameter"):
        parse('name: "resnet" backend: "onnxruntime"', "resnet")


def test_a_config_in_the_folder_of_another_graph_is_refused() -> None:
    with pytest.raises(ManifestError, match="must be the folder's name"):
        parse(render(denoiser()), "another")


def test_a_config_without_a_name_takes_that_of_its_folder() -> None:
    config = to_config(denoiser())
    config.ClearField("name")
    assert parse(text_format.MessageToString(config), "shapes_unet") == denoiser()


@pytest.mark.parametrize("key", ["role", "family", "task", "roles", "value_range", "levels"])
def test_a_missing_parameter_is_named(key: str) -> None:
    config = to_config(denoiser())
    del config.parameters[f"atelier.{key}"]
    with pytest.raises(ManifestError, match=f"shapes_unet: .*'{key}'"):
        from_config(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("levels", "many"),
        ("value_range", "[0]"),
        ("schedule", '{"kind": "edm"}'),
        ("sampling", '{"sampler": "heun", "steps": 18, "colour": 1}'),
        ("sampling", '{"sampler": "heun", "steps": 18, "guidance_interval": [2, 1]}'),
        ("sampling", '{"sampler": "heun", "steps": 18, "guidance_interval": [1]}'),
        ("class_labels", "["),
        ("version.one", "{}"),
        ("version.1", '{"sha256": "0"}'),
    ],
)
def test_a_parameter_that_cannot_be_read_is_an_error_of_its_graph(key: str, value: str) -> None:
    config = to_config(denoiser())
    config.parameters[f"atelier.{key}"].string_value = value
    with pytest.raises(ManifestError, match="shapes_unet"):
        from_config(config)


def test_an_element_type_that_no_graph_of_ours_has_is_named() -> None:
    config = to_config(generator())
    config.input[0].data_type = model_config_pb2.TYPE_FP16
    with pytest.raises(ManifestError, match="'latent' is TYPE_FP16, not one of TYPE_FP32, TYPE_INT64"):
        from_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": "a/b"}, "graph 'a/b' must be letters"),
        ({"model": ""}, "model '' must be letters"),
        ({"model": "../up"}, "model '../up' must be letters"),
        ({"role": "decoder"}, "role 'decoder' is not among roles"),
        ({"max_batch_size": 0}, "max_batch_size must be at least 1, got 0"),
        ({"sampling": None}, "a denoiser needs `sampling`"),
        ({"tasks": ("generate", "paint")}, r"unknown tasks \['paint'\]"),
        ({"inputs": (CLASS_ID, CLASS_ID)}, "two tensors have one name: class_id, class_id"),
        ({"versions": {0: RECORD}}, "versions count from 1"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        dataclasses.replace(denoiser(), **changes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TensorSpec(name="", shape=(1,)), "a tensor has no name"),
        (lambda: TensorSpec(name="x", dtype="float16", shape=(1,)), "dtype 'float16', not one of"),  # type: ignore[arg-type]
        (lambda: TensorSpec(name="x", shape=(3, 0)), r"shape \[3, 0\]: axes are positive, or -1"),
        (lambda: TensorSpec(name="x", shape=(-2,)), r"shape \[-2\]"),
        (lambda: TensorSpec(name="x", shape=(3, -1, -1), multiple_of=0), "multiple_of 0: it is 1 or more"),
        (lambda: Parameterization(prediction="noise"), "'noise' is not one of epsilon, x0, v, edm, flow"),  # type: ignore[arg-type]
        (lambda: NoiseSchedule(kind="sqrt", sigma_min=1, sigma_max=2), "'sqrt' is not one of"),  # type: ignore[arg-type]
        (
            lambda: NoiseSchedule(kind="edm", sigma_min=2, sigma_max=1),
            "0 < sigma_min < sigma_max, got 2 and 1",
        ),
        (
            lambda: NoiseSchedule(kind="vp_linear", sigma_min=0.01, sigma_max=157, timesteps=20),
            "'vp_linear' needs at least 21 timesteps, got 20: train and export it again with more",
        ),
        (
            lambda: NoiseSchedule(kind="vp_cosine", sigma_min=0.01, sigma_max=157, timesteps=1),
            "'vp_cosine' needs at least 2 timesteps, got 1",
        ),
    ],
)
def test_parts_that_cannot_be_are_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ManifestError, match=message):
        build()

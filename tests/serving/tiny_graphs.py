"""Models of every kind whose graphs are a few nodes, with answers that can be written down.

- `tiny_gan`: a conditional generator.
- `tiny_vae`: a linear encoder and decoder, conditional, with decoder noise; decoding the latent of an image
  gives its first pixels back.
- `tiny_translator`: `a_to_b` inverts an image, `b_to_a` blurs it; any size in multiples of 4.
- `tiny_gaussian`: the exact denoiser of a normal distribution around a mean for each class.
- `tiny_latent`: the same without classes at half the size, and a decoder that enlarges it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serving.manifest import (
    Manifest,
    NoiseSchedule,
    Parameterization,
    Sampling,
    TensorSpec,
    VersionRecord,
    render,
)

LABELS = ("zero", "one", "two")
CLASS = TensorSpec(name="class_id", dtype="int64", shape=(1,))
SIDE = 8
LATENT = 4
DEVIATION = 0.25
"""Standard deviation of the data of the Gaussian models, and their sigma_data."""
MEANS = np.array([-0.5, 0.0, 0.5, 0.0], np.float32)
"""Mean of each class of `tiny_gaussian`, the last of the null class."""

_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def graph(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[np.generic]],
) -> bytes:
    """An ONNX model of opset 20 with a dynamic batch."""

    def value(spec: TensorSpec) -> onnx.ValueInfoProto:
        shape = ["rows", *(f"{spec.name}_{i}" if n < 0 else n for i, n in enumerate(spec.shape))]
        return helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], shape)

    proto = helper.make_graph(
        nodes,
        "tiny",
        [value(spec) for spec in inputs],
        [value(spec) for spec in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def publish(repository: Path, manifest: Manifest, versions: Mapping[int, bytes]) -> None:
    """Writes a graph into a repository as it lies there when it has been published."""
    folder = repository / manifest.graph
    records = {}
    for version, model in versions.items():
        path = folder / str(version) / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(model)
        records[version] = VersionRecord(sha256=hashlib.sha256(model).hexdigest(), max_abs_error=1e-6)
    config = render(Manifest(**{**vars(manifest), "versions": records}))
    (folder / "config.pbtxt").write_text(config, "utf-8")


def publish_gan(repository: Path, versions: int = 2) -> None:
    """Each version has weights of its own."""
    inputs = (TensorSpec(name="latent", shape=(LATENT,)), CLASS)
    outputs = (TensorSpec(name="sample", shape=(1, SIDE, SIDE)),)
    nodes = [
        helper.make_node("Gather", ["classes", "class_id"], ["embedded"]),
        helper.make_node("Squeeze", ["embedded", "axis"], ["embedding"]),
        helper.make_node("Add", ["latent", "embedding"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "weight"], ["flat"]),
        helper.make_node("Tanh", ["flat"], ["bounded"]),
        helper.make_node("Reshape", ["bounded", "shape"], ["sample"]),
    ]
    manifest = Manifest(
        graph="tiny_gan",
        model="tiny_gan",
        role="generator",
        family="gan",
        tasks=("generate",),
        roles=("generator",),
        inputs=inputs,
        outputs=outputs,
        max_batch_size=8,
        class_labels=LABELS,
        metadata={"data": "none at all"},
    )
    random = np.random.default_rng(0)
    publish(
        repository,
        manifest,
        {
            version: graph(
                inputs,
                outputs,
                nodes,
                {
                    "classes": random.standard_normal((len(LABELS), LATENT)).astype(np.float32),
                    "weight": random.standard_normal((LATENT, SIDE * SIDE)).astype(np.float32),
                    "axis": np.array([1]),
                    "shape": np.array([-1, 1, SIDE, SIDE]),
                },
            )
            for version in range(1, versions + 1)
        },
    )
    (repository / "tiny_gan" / "card.md").write_text("# tiny_gan\n", "utf-8")


def publish_vae(repository: Path) -> None:
    """Latents are an image's first pixels over two, less the class; the decoder puts them back."""
    shared = {
        "model": "tiny_vae",
        "family": "vae",
        "tasks": ("generate", "encode", "decode"),
        "roles": ("decoder", "encoder"),
        "class_labels": LABELS,
        "max_batch_size": 8,
    }
    pixels = SIDE * SIDE
    into = np.eye(LATENT, pixels, dtype=np.float32) * 0.5
    image = TensorSpec(name="image", shape=(1, SIDE, SIDE))
    latent = TensorSpec(name="latent", shape=(LATENT,))
    noise = TensorSpec(name="noise", shape=(pixels,))
    sample = TensorSpec(name="sample", shape=(1, SIDE, SIDE))
    mean, log_variance = (TensorSpec(name=name, shape=(LATENT,)) for name in ("mean", "log_variance"))
    constants = {
        "flat": np.array([-1, pixels]),
        "out": into.T.copy() * 2,
        "into": into,
        "tenth": np.array([[0.1]], np.float32),
        "shape": np.array([-1, 1, SIDE, SIDE]),
    }
    publish(
        repository,
        Manifest(
            graph="tiny_vae_decoder",
            role="decoder",
            inputs=(latent, noise, CLASS),
            outputs=(sample,),
            **shared,
        ),
        {
            1: graph(
                (latent, noise, CLASS),
                (sample,),
                [
                    helper.make_node("Cast", ["class_id"], ["shift"], to=TensorProto.FLOAT),
                    helper.make_node("Mul", ["shift", "tenth"], ["shifted"]),
                    helper.make_node("Add", ["latent", "shifted"], ["z"]),
                    helper.make_node("MatMul", ["z", "into"], ["half"]),
                    helper.make_node("Add", ["half", "half"], ["mean"]),
                    helper.make_node("Mul", ["noise", "tenth"], ["little"]),
                    helper.make_node("Add", ["mean", "little"], ["row"]),
                    helper.make_node("Reshape", ["row", "shape"], ["sample"]),
                ],
                {name: constants[name] for name in ("into", "tenth", "shape")},
            )
        },
    )
    publish(
        repository,
        Manifest(
            graph="tiny_vae_encoder",
            role="encoder",
            inputs=(image, CLASS),
            outputs=(mean, log_variance),
            **shared,
        ),
        {
            1: graph(
                (image, CLASS),
                (mean, log_variance),
                [
                    helper.make_node("Reshape", ["image", "flat"], ["row"]),
                    helper.make_node("MatMul", ["row", "half"], ["z"]),
                    helper.make_node("Cast", ["class_id"], ["shift"], to=TensorProto.FLOAT),
                    helper.make_node("Mul", ["shift", "tenth"], ["shifted"]),
                    helper.make_node("Sub", ["z", "shifted"], ["mean"]),
                    helper.make_node("Mul", ["z", "zero"], ["log_variance"]),
                ],
                {
                    "flat": constants["flat"],
                    "half": np.eye(pixels, LATENT, dtype=np.float32),
                    "tenth": constants["tenth"],
                    "zero": np.array([[0]], np.float32),
                },
            )
        },
    )


def publish_translator(repository: Path) -> None:
    """The negative of an image one way, a box blur the other."""
    image = TensorSpec(name="image", shape=(3, -1, -1), multiple_of=4)
    translated = TensorSpec(name="translated", shape=(3, -1, -1))
    box = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        box[channel, channel] = 1 / 9
    directions = {
        "a_to_b": ([helper.make_node("Neg", ["image"], ["translated"])], {}),
        "b_to_a": (
            [helper.make_node("Conv", ["image", "box"], ["translated"], pads=[1, 1, 1, 1])],
            {"box": box},
        ),
    }
    for role, (nodes, constants) in directions.items():
        manifest = Manifest(
            graph=f"tiny_translator_{role}",
            model="tiny_translator",
            role=role,
            family="cyclegan",
            tasks=("translate",),
            roles=tuple(directions),
            inputs=(image,),
            outputs=(translated,),
            domains=("day", "night"),
            max_batch_size=8,
        )
        publish(repository, manifest, {1: graph((image,), (translated,), nodes, constants)})


def gaussian(channels: int, side: int, classes: bool, mean: float = 0.25) -> bytes:
    """The optimal EDM network for normal data: F = sigma mean / (sigma_data (sigma² + sigma_data²)^½).

    So the denoised image is (sigma_data² x + sigma² mean) / (sigma² + sigma_data²), `mean` being that of a
    model without classes.
    """
    x, level, prediction = gaussian_tensors(channels, side)
    nodes = [
        helper.make_node("Mul", ["noise_level", "four"], ["log_sigma"]),
        helper.make_node("Exp", ["log_sigma"], ["sigma"]),
        helper.make_node("Mul", ["sigma", "sigma"], ["variance"]),
        helper.make_node("Add", ["variance", "data_variance"], ["total"]),
        helper.make_node("Sqrt", ["total"], ["root"]),
        helper.make_node("Mul", ["root", "deviation"], ["scale"]),
        helper.make_node("Div", ["sigma", "scale"], ["share"]),
        helper.make_node("Gather", ["means", "class_id" if classes else "zero"], ["mean"]),
        helper.make_node("Mul", ["share", "mean"], ["value"]),
        helper.make_node("Reshape", ["value", "shape"], ["image"]),
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Expand", ["image", "size"], ["prediction"]),
    ]
    constants = {
        "four": np.array([[4]], np.float32),
        "data_variance": np.array([[DEVIATION**2]], np.float32),
        "deviation": np.array([[DEVIATION]], np.float32),
        "means": MEANS if classes else np.array([mean], np.float32),
        "shape": np.array([-1, 1, 1, 1]),
    }
    if not classes:
        constants["zero"] = np.array([[0]])
    inputs = (x, level, CLASS) if classes else (x, level)
    return graph(inputs, (prediction,), nodes, constants)


def gaussian_tensors(channels: int, side: int) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    """Of a denoiser: x, noise_level and prediction."""
    shape = (channels, side, side)
    return (
        TensorSpec(name="x", shape=shape),
        TensorSpec(name="noise_level", shape=(1,)),
        TensorSpec(name="prediction", shape=shape),
    )


SAMPLING = Sampling(
    parameterization=Parameterization(prediction="edm", sigma_data=DEVIATION),
    schedule=NoiseSchedule(kind="edm", sigma_min=0.002, sigma_max=80),
    sampler="heun",
    steps=8,
    max_steps=200,
)


def publish_gaussians(repository: Path) -> None:
    """A conditional denoiser, and an unconditional one with a decoder."""
    x, level, prediction = gaussian_tensors(3, SIDE)
    publish(
        repository,
        Manifest(
            graph="tiny_gaussian",
            model="tiny_gaussian",
            role="denoiser",
            family="diffusion",
            tasks=("generate",),
            roles=("denoiser",),
            inputs=(x, level, CLASS),
            outputs=(prediction,),
            class_labels=LABELS,
            sampling=SAMPLING,
            max_batch_size=8,
        ),
        {1: gaussian(3, SIDE, classes=True)},
    )
    shared = {
        "model": "tiny_latent",
        "family": "diffusion",
        "tasks": ("generate",),
        "roles": ("denoiser", "decoder"),
        "max_batch_size": 8,
    }
    x, level, prediction = gaussian_tensors(1, SIDE // 2)
    latent = TensorSpec(name="latent", shape=x.shape)
    sample = TensorSpec(name="sample", shape=(1, SIDE, SIDE))
    publish(
        repository,
        Manifest(
            graph="tiny_latent_denoiser",
            role="denoiser",
            inputs=(x, level),
            outputs=(prediction,),
            sampling=SAMPLING,
            **shared,
        ),
        {1: gaussian(1, SIDE // 2, classes=False)},
    )
    resize = helper.make_node("Resize", ["latent", "", "scales"], ["sample"], mode="nearest")
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    publish(
        repository,
        Manifest(graph="tiny_latent_decoder", role="decoder", inputs=(latent,), outputs=(sample,), **shared),
        {1: graph((latent,), (sample,), [resize], scales)},
    )


def publish_all(repository: Path) -> Path:
    """A repository with every tiny model."""
    publish_gan(repository)
    publish_vae(repository)
    publish_translator(repository)
    publish_gaussians(repository)
    return repository

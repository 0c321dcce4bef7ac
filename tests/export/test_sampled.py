"""A whole sampler in one graph draws the pictures that the gateway draws step by step."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_graphs
from prometheus_client import CollectorRegistry

import atelier
from export.publish import published
from serving.manifest import NoiseSchedule, Parameterization
from serving.noise import Stream, normal
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.requests.context import RequestContext
from serving.service import Service
from serving.settings import Settings

SHIPPED = Path(__file__).parents[2] / "model_repository"
FLOW = NoiseSchedule(kind="flow", sigma_min=0.001, sigma_max=999)
VP = NoiseSchedule(kind="vp_linear", sigma_min=0.01, sigma_max=157.4)

SAMPLINGS: dict[str, dict[str, Any]] = {
    "edm": {},
    "flow": {"parameterization": Parameterization(prediction="flow"), "schedule": FLOW},
    # The noise of a network that was not trained is far off, and its errors as large: clipped, as in DDPM.
    "epsilon": {
        "parameterization": Parameterization(prediction="epsilon"),
        "schedule": VP,
        "clip_denoised": True,
    },
    "x0": {"parameterization": Parameterization(prediction="x0"), "schedule": VP},
    "v": {"parameterization": Parameterization(prediction="v"), "schedule": VP},
    "clipped": {"clip_denoised": True},
    "guided": {"guidance_scale": 3.0},
    "guided in the middle": {"guidance_scale": 3.0, "guidance_interval": (0.1, 10.0)},
    "guided nowhere": {"guidance_scale": 3.0, "guidance_interval": (100.0, 200.0)},
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    tiny_graphs.publish_gaussians(tmp_path / "repository")
    return tmp_path / "repository"


def export(repository: Path, model: str, sampler: str, *options: str) -> int:
    command = ["export", "--from-model", model, "--sampler", sampler, "--to", str(repository), *options]
    return atelier.main(command)


def publish_squash(repository: Path, **sampling: Any) -> None:
    """A denoiser that means nothing and is finite for all parameterizations: tanh(x + level + class)."""
    gaussian = published(repository)["tiny_gaussian"]
    assert gaussian.sampling is not None
    nodes = [
        onnx.helper.make_node("Softsign", ["noise_level"], ["level"]),
        onnx.helper.make_node("Gather", ["means", "class_id"], ["mean"]),
        onnx.helper.make_node("Add", ["level", "mean"], ["shift"]),
        onnx.helper.make_node("Reshape", ["shift", "shape"], ["shifts"]),
        onnx.helper.make_node("Add", ["x", "shifts"], ["shifted"]),
        onnx.helper.make_node("Tanh", ["shifted"], ["prediction"]),
    ]
    constants = {"means": tiny_graphs.MEANS, "shape": np.array([-1, 1, 1, 1])}
    model = tiny_graphs.graph(gaussian.inputs, gaussian.outputs, nodes, constants)
    manifest = dataclasses.replace(
        gaussian,
        graph="squash",
        model="squash",
        sampling=dataclasses.replace(gaussian.sampling, **sampling),
        versions={},
    )
    tiny_graphs.publish(repository, manifest, {1: model})


async def pictures(service: Service, model: str, **asked: Any) -> np.ndarray:
    """Pixels [count, height, width, channels] that the gateway draws."""
    request = pb.GenerateImagesRequest(model=model, count=5, format=pb.IMAGE_FORMAT_RAW_U8, **asked)
    response = await service.generate_images(request, RequestContext())
    return np.stack(
        [
            np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, image.channels)
            for image in response.images
        ]
    )


async def both(repository: Path, model: str, sampler: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of a seed drawn step by step, and by the graph that was made of it."""
    settings = Settings(repository=repository, device="cpu", instances=1)
    async with open_service(settings, CollectorRegistry()) as service:
        await service.wait_loaded()
        stepwise = await pictures(service, model, seed=7, sampler=sampler, steps=steps)
        return stepwise, await pictures(service, f"{model}_{sampler}{steps}", seed=7)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "heun", "lms"])
async def test_the_gateway_draws_the_same_pictures_with_it(repository: Path, sampler: str) -> None:
    for model in ("tiny_gaussian", "tiny_latent"):
        assert export(repository, model, f"{sampler}:6") == 0
        stepwise, whole = await both(repository, model, sampler, 6)
        np.testing.assert_array_equal(whole, stepwise)
        assert whole.std() > 5


async def test_of_a_shipped_model_it_draws_the_same_bytes(tmp_path: Path) -> None:
    for graph in ("digits_unet_denoiser", "digits_unet_decoder"):
        shutil.copytree(SHIPPED / graph, tmp_path / graph)
    assert export(tmp_path, "digits_unet", "ddim:20") == 0
    manifest = published(tmp_path)["digits_unet_ddim20"]
    assert manifest.versions[1].max_abs_error == 0
    assert manifest.versions[1].min_rows == 1
    assert manifest.output("sample") == published(tmp_path)["digits_unet_decoder"].output("sample")
    stepwise, whole = await both(tmp_path, "digits_unet", "ddim", 20)
    np.testing.assert_array_equal(whole, stepwise)


@pytest.mark.parametrize("case", SAMPLINGS)
def test_it_is_read_guided_and_clipped_as_its_manifest_says(repository: Path, case: str) -> None:
    publish_squash(repository, **SAMPLINGS[case])
    assert export(repository, "squash", "dpmpp_2m:7") == 0
    assert published(repository)["squash_dpmpp_2m7"].versions[1].max_abs_error <= 1e-4


def test_guidance_changes_the_picture_and_none_calls_each_row_once(repository: Path) -> None:
    def outputs(model: str) -> np.ndarray:
        session = onnxruntime.InferenceSession(repository / model / "1" / "model.onnx")
        latent = normal(1, 2, (3, 8, 8), Stream.PRIOR)
        return session.run(None, {"latent": latent, "class_id": np.array([[0], [2]])})[0]

    for scale in ("1", "4"):
        options = ("--guidance-scale", scale, "--name", f"scale_{scale}")
        assert export(repository, "tiny_gaussian", "ddim:9", *options) == 0
    # Towards the classes' means of -0.5 and 0.5, four times as far from the null class's 0.
    plain, guided = outputs("scale_1").mean(axis=(1, 2, 3)), outputs("scale_4").mean(axis=(1, 2, 3))
    np.testing.assert_allclose(plain, [-0.5, 0.5], atol=0.1)
    np.testing.assert_allclose(guided, [-2, 2], atol=0.1)
    body = onnx.load(repository / "scale_1" / "1" / "model.onnx").graph
    assert "Concat" not in {node.op_type for node in body.node}
    assert published(repository)["scale_4"].metadata["guidance_scale"] == "4"


def test_it_is_a_model_of_its_own_with_its_origin_in_the_metadata(repository: Path) -> None:
    assert export(repository, "tiny_gaussian:1", "heun_karras") == 0
    manifest = published(repository)["tiny_gaussian_heun_karras8"]
    assert (manifest.model, manifest.role, manifest.roles) == (manifest.graph, "generator", ("generator",))
    assert [spec.name for spec in manifest.inputs] == ["latent", "class_id"]
    assert manifest.class_labels == tiny_graphs.LABELS
    assert manifest.sampling is None
    assert manifest.metadata["sampled_from"] == "tiny_gaussian"
    assert manifest.metadata["sampler"] == "heun_karras"
    assert manifest.metadata["sampler_steps"] == "8"
    assert sorted(published(repository)) == [
        "tiny_gaussian",
        "tiny_gaussian_heun_karras8",
        "tiny_latent_decoder",
        "tiny_latent_denoiser",
    ]


def test_the_same_sampler_again_is_its_next_version_and_the_same_bytes(repository: Path) -> None:
    for _ in range(2):
        assert export(repository, "tiny_gaussian", "unipc_3:5") == 0
    versions = published(repository)["tiny_gaussian_unipc_3_5"].versions
    assert sorted(versions) == [1, 2]
    assert versions[1].sha256 == versions[2].sha256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny_gaussian", "ddpm:20"], "sampler 'ddpm' draws noise at every step"),
        (["tiny_gaussian", "ddin:20"], "--sampler ddin:20: sampler 'ddin' is not one of ddim, "),
        (["tiny_gaussian", "lcm:4"], "sampler 'lcm' is not one of"),
        (["tiny_gaussian", "ddim:0"], "steps '0' are not possible: tiny_gaussian takes 1 to 200"),
        (["tiny_gaussian", "ddim:201"], "steps '201' are not possible"),
        (["tiny_gaussian", "ddim:many"], "steps 'many' are not possible"),
        (["tiny_gausian", "ddim:5"], "no model 'tiny_gausian' in"),
        (["tiny_gausian", "ddim:5"], "there are tiny_gaussian, tiny_gan, tiny_latent"),
        (["tiny_gaussian:2", "ddim:5"], "has no version 2: it has 1"),
        (["tiny_gaussian", "ddim:5", "--guidance-scale", "-1"], "--guidance-scale -1 is out of range"),
        (["tiny_gaussian", "ddim:5", "--guidance-scale", "nan"], "--guidance-scale nan is out of range"),
        (["tiny_latent", "ddim:5", "--guidance-scale", "2"], "tiny_latent is unconditional"),
        (["tiny_gan", "ddim:5"], "tiny_gan draws in one pass and has no sampler"),
        (["tiny_gaussian", "heun:5", "--tolerance", "1e-12"], "above the tolerance 1e-12"),
    ],
)
def test_what_cannot_be_had_is_named_and_nothing_is_published(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    tiny_graphs.publish_gan(repository)
    before = sorted(published(repository))
    assert export(repository, *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(published(repository)) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the folder of a run, or with --sampler a model by --from-model"),
        (["run", "--from-model", "tiny_gaussian", "--sampler", "ddim"], "and not both"),
        (["--from-model", "tiny_gaussian"], "--from-model and --guidance-scale are for --sampler"),
        (["run", "--guidance-scale", "2"], "--from-model and --guidance-scale are for --sampler"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert atelier.main(["export", *arguments, "--to", str(repository)]) == 2
    assert message in capsys.readouterr().err


def test_a_changed_file_is_not_taken_for_the_one_that_was_published(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = repository / "tiny_gaussian" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    assert export(repository, "tiny_gaussian", "ddim:5") == 2
    assert "is not the file that was published: export the model again" in capsys.readouterr().err
    model.unlink()
    assert export(repository, "tiny_gaussian", "ddim:5") == 2
    assert "model.onnx cannot be read: No such file or directory" in capsys.readouterr().err


def test_a_decoder_with_noise_of_its_own_is_refused(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = repository / "tiny_latent_decoder" / "config.pbtxt"
    noise = 'input {\n  name: "noise"\n  data_type: TYPE_FP32\n  dims: 4\n}\noutput {'
    config.write_text(config.read_text().replace("output {", noise, 1))
    assert export(repository, "tiny_latent", "ddim:5") == 2
    assert "graph 'tiny_latent_decoder' takes noise, which a sampler in one graph" in capsys.readouterr().err

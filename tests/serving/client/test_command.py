"""The commands that ask a gateway: what they write, what they say, how they fail."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.client.command import _versions, generate, models, translate
from serving.client.gateway import Gateway
from serving.pb import image_generation_pb2 as pb


@pytest.fixture
def asked(running_gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write to, with the gateway where the commands look for it."""
    monkeypatch.setenv("ATELIER_ADDRESS", running_gateway.grpc_address)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_models_are_a_table(asked: Path, capsys: pytest.CaptureFixture[str]):
    assert models([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["model", "family", "size"]
    (line,) = (line for line in lines if line.startswith("tiny_gaussian"))
    assert "8×8" in line
    assert "zero, one, two" in line
    assert "heun, 8 steps" in line


def test_of_versions_it_is_said_which_get_requests_and_which_were_refused():
    ready, refused = pb.VERSION_STATE_READY, pb.VERSION_STATE_REFUSED
    model = pb.Model(default_version=2)
    model.version_status.add(version=2, state=ready, share=1)
    assert _versions(model) == "2"
    model.version_status.add(version=3, state=refused)
    assert _versions(model) == "2, 3 refused"
    del model.version_status[:]
    model.version_status.add(version=1, state=ready, share=0.75)
    model.version_status.add(version=2, state=ready, share=0.25)
    assert _versions(model) == "1 75%, 2 25%"


def test_one_image_is_written_as_it_is(asked: Path, capsys: pytest.CaptureFixture[str]):
    assert generate(["tiny_gan", "--class", "one", "--seed", "3"]) == 0
    with Image.open(asked / "tiny_gan.png") as picture:
        assert picture.size == (8, 8)
    assert "tiny_gan.png: 1 picture of tiny_gan v2, seed 3" in capsys.readouterr().out


def test_several_images_are_a_contact_sheet(asked: Path):
    assert generate(["tiny_gaussian", "--count", "16", "--steps", "2", "-o", "sheet.webp"]) == 0
    with Image.open(asked / "sheet.webp") as sheet:
        assert sheet.format == "WEBP"
        assert min(sheet.size) > 4 * 8


def test_a_folder_gets_a_file_an_image(asked: Path):
    assert generate(["tiny_gan", "--count", "3", "--seed", "5", "-o", "out/"]) == 0
    assert sorted(path.name for path in (asked / "out").iterdir()) == [
        f"tiny_gan-5-00{index}.png" for index in range(3)
    ]


def test_a_class_may_be_its_label_or_its_id(asked: Path):
    assert generate(["tiny_gan", "--class", "two", "--seed", "5", "-o", "label.png"]) == 0
    assert generate(["tiny_gan", "--class", "2", "--seed", "5", "-o", "id.png"]) == 0
    assert (asked / "label.png").read_bytes() == (asked / "id.png").read_bytes()


def test_a_picture_is_translated(asked: Path):
    Image.new("RGB", (8, 12), "red").save(asked / "in.png")
    assert translate(["tiny_translator", "in.png", "--direction", "a_to_b", "-o", "out.png"]) == 0
    pixels = np.asarray(Image.open(asked / "out.png"))
    assert pixels.shape == (12, 8, 3)
    assert (pixels == [0, 255, 255]).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny_gam"], "tiny_gan"),
        (["tiny_gan", "--class", "eleven"], "zero, one, two"),
        (["tiny_gan", "--class", "11"], "class_id 11"),
        (["tiny_gan", "-o", "nowhere/out.png"], "nowhere/out.png"),
        (["tiny_gan", "-o", "out.picture"], "use .png, .jpg or .webp"),
    ],
)
def test_what_goes_wrong_is_one_line(
    asked: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
):
    assert generate(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("atelier generate: ")
    assert said in line


def test_a_picture_that_is_not_there_is_named(asked: Path, capsys: pytest.CaptureFixture[str]):
    assert translate(["tiny_translator", "missing.png"]) == 1
    assert "no picture at missing.png" in capsys.readouterr().err


def test_without_a_gateway_the_command_says_how_to_start_one(tmp_path: Path):
    command = [sys.executable, "-m", "atelier", "models", "--address", "127.0.0.1:9"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 1
    assert "no gateway answers at 127.0.0.1:9; start one with `atelier serve`" in ran.stderr
    assert "Traceback" not in ran.stderr

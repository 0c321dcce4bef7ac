"""Images: linted, pinned, really built, and the gateway run from its read-only root file system."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement
from rootfs import ROOT, Image, built, inside, require_tools, run

from serving.client import Client
from serving.client.gateway import free_ports

DOCKERFILES = sorted((ROOT / "images").glob("*ockerfile"))


@pytest.fixture(scope="module")
def pin():
    """`images/pin.py`."""
    spec = importlib.util.spec_from_file_location("images_pin", ROOT / "images" / "pin.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path):
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(dockerfile)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_a_number_and_is_labelled(dockerfile: Path):
    text = dockerfile.read_text()
    (user,) = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert re.findall(r"^ARG BASE_IMAGE=\S+:\S+", text, re.MULTILINE)
    assert {"title", "description", "version", "revision", "licenses"} <= set(
        re.findall(r"org\.opencontainers\.image\.(\w+)=", text)
    )
    assert "HEALTHCHECK" in text


def test_every_package_that_an_extra_needs_is_pinned_to_a_version_that_it_allows(pin):
    extras = pin.extras()
    for name, extra, without, instead in pin.LISTS:
        lines = (ROOT / "images" / name).read_text().splitlines()[1:]
        pins = {Requirement(line).name: Requirement(line) for line in lines}
        assert all(str(p.specifier).startswith("==") for p in pins.values())
        replaced = {Requirement(line.split("==")[0]).name for line in instead}
        assert replaced <= pins.keys()
        wanted = list(extras[extra])
        while wanted:
            requirement = wanted.pop()
            if requirement.name == "atelier":
                wanted += [need for inner in requirement.extras for need in extras[inner]]
            elif requirement.name not in without:
                (version,) = pins[requirement.name].specifier
                assert requirement.specifier.contains(version.version), (
                    f"{name}: {requirement}; run `make pins`"
                )


def test_the_gateways_image_gets_no_torch():
    for name in ("requirements-cpu.txt", "requirements-gpu.txt"):
        text = (ROOT / "images" / name).read_text()
        assert not re.search(r"^(torch|onnxscript|scipy)==", text, re.MULTILINE)


def test_the_context_of_a_build_holds_nothing_but_what_is_copied():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for dockerfile in DOCKERFILES:
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile.read_text(), re.MULTILINE):
            copied |= {re.sub(r"requirements-\w+", "requirements-*", word) for word in line.split()[:-1]}
    assert kept == copied


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The gateway's image, built."""
    require_tools()
    with built("Dockerfile", "--build-arg", "REVISION=abcdef") as image:
        yield image


@pytest.mark.slow
def test_the_built_image_is_what_was_meant(image: Image):
    assert image.config["User"] == "10001:10001"
    assert image.config["Cmd"] == ["atelier", "serve"]
    assert image.config["Labels"]["org.opencontainers.image.revision"] == "abcdef"
    assert image.config["Labels"]["org.opencontainers.image.description"].endswith("(cpu)")
    assert image.config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    installed = {path.name for path in image.root.glob("opt/atelier/lib/python3*/site-packages/*")}
    assert {"serving", "onnx", "onnxruntime", "atelier.py"} <= installed
    assert not installed & {"torch", "training", "export", "pip", "setuptools"}
    assert not (image.root / "source").exists()
    assert {p.name for p in (image.root / "models").iterdir()} == {
        p.name for p in (ROOT / "model_repository").iterdir() if not p.name.startswith(".")
    }
    text = json.dumps(image.config)
    assert "PIP_" not in text
    assert run(image, "id", "-u").strip() == "10001"
    refused = subprocess.run(inside(image, "touch", "/models/x"), capture_output=True, text=True)
    assert "Read-only file system" in refused.stderr


@pytest.mark.slow
def test_the_gateway_runs_from_the_built_image(image: Image):
    http, grpc, metrics = map(str, free_ports(3))
    variables = {
        **{"ATELIER_HOST": "127.0.0.1", "ATELIER_HTTP_PORT": http, "ATELIER_GRPC_PORT": grpc},
        **{"ATELIER_METRICS_PORT": metrics, "ATELIER_DRAIN_DELAY": "0"},
    }
    process = subprocess.Popen(
        inside(image, *image.config["Cmd"], **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                assert urlopen(f"http://127.0.0.1:{metrics}/readyz", timeout=5).status == 200
                break
            except URLError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.1)
        with Client(f"127.0.0.1:{grpc}") as client:
            (picture,) = client.generate("digits_unet", class_label="seven", seed=1)
            assert picture.size == (32, 32)
        run(image, *image.config["Healthcheck"]["Test"][1:], ATELIER_METRICS_PORT=metrics)
        # The gateway is the first process of its namespace, as it is in a container.
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "stopped" in said
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_an_image_that_is_not_told_who_may_use_it_does_not_start(image: Image):
    ended = subprocess.run(inside(image, *image.config["Cmd"]), capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "allow" in ended.stderr

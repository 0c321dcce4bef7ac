"""Building images without a Docker engine: buildah in chroot isolation, on a Debian made by debootstrap.

Everything lies in the git-ignored `.cache/images`: the Debian is made once and kept, what is built goes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "images"
BASE = "localhost/debian-python"
_SUITE = "bookworm"
_TOOLS = ("buildah", "debootstrap", "unshare", "chroot")

# How this machine reaches packages, if in a way of its own: for the build alone, never in an image.
_PIP_FILES = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, kw_only=True)
class Image:
    """A built image, unpacked."""

    root: Path
    """Its root file system."""
    config: dict
    """Its configuration, as the OCI has it: Env, Cmd, User, Labels."""

    def environment(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])


def require_time() -> None:
    """Skips, and says so, what takes minutes and gigabytes, unless CI or whoever asks wants it."""
    if not {os.environ.get("CI"), os.environ.get("ATELIER_ALL_IMAGES")} & {"true", "1"}:
        pytest.skip("THE GPU AND TRAINING IMAGES ARE NOT BUILT HERE: set ATELIER_ALL_IMAGES=1")


def require_tools() -> None:
    """Skips, and says so, where images cannot be built; fails where CI wants them."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        reason = f"NO IMAGE IS BUILT HERE: there is no {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def built(dockerfile: str, *arguments: str) -> Iterator[Image]:
    """An image of the Dockerfile; it is removed afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _base()
        tag = "localhost/under-test"
        volumes = [f"--volume={path}:{path}:ro" for path in _PIP_FILES if Path(path).exists()]
        _buildah(
            *("bud", "--isolation", "chroot", "--layers=false", "--pull-never", "--format", "docker"),
            *("--build-arg", f"BASE_IMAGE={BASE}", *arguments, *volumes, *_pip_arguments()),
            *("--file", str(ROOT / "images" / dockerfile), "--tag", tag, str(ROOT)),
        )
        container = _buildah("from", "--pull-never", tag)
        try:
            root = Path(_buildah("mount", container))
            inspected = json.loads(_buildah("inspect", "--type", "image", tag))
            yield Image(root=root, config=inspected["Docker"]["config"])
        finally:
            _buildah("rm", container)
            _buildah("rmi", tag)


def inside(image: Image, *command: str, **variables: str) -> list[str]:
    """The command that runs another in the image: as its user, read-only, with nothing to write but /tmp."""
    environment = image.environment() | variables
    script = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && mount -t proc proc "$1/proc" '
        '&& mount -t tmpfs -o mode=1777 tmpfs "$1/tmp" && mount --bind /dev/null "$1/dev/null" '
        '&& mount --bind /dev/urandom "$1/dev/urandom" && cd / && root="$1" && shift '
        f'&& exec chroot --userspec={image.config["User"]} "$root" env -i "$@"'
    )
    assignments = [f"{name}={value}" for name, value in environment.items()]
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    return [*unshare, "sh", "-ec", script, "sh", str(image.root), *assignments, *command]


def run(image: Image, *command: str, seconds: float = 60, **variables: str) -> str:
    """What a command prints in the image; it has to succeed."""
    command = tuple(inside(image, *command, **variables))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _base() -> None:
    """A Debian with Python, as an image."""
    if BASE in _buildah("images", "--format", "{{.Name}}").split():
        return
    root = CACHE / "debian.unfinished"
    shutil.rmtree(root, ignore_errors=True)
    _run("debootstrap", "--variant=minbase", "--include=python3-venv,ca-certificates", _SUITE, str(root))
    shutil.rmtree(root / "var/cache/apt")
    shutil.rmtree(root / "var/lib/apt/lists")
    container = _buildah("from", "scratch")
    try:
        _buildah("copy", "--quiet", container, str(root), "/")
        _buildah("commit", "--quiet", container, BASE)
    finally:
        _buildah("rm", container)
        shutil.rmtree(root)


def _pip_arguments() -> list[str]:
    """Where pip finds packages here, as build arguments."""
    return [
        f"--build-arg={name}={os.environ[name]}"
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
        if os.environ.get(name)
    ]


def _buildah(*arguments: str) -> str:
    place = ("--root", str(CACHE / "storage"), "--runroot", str(CACHE / "run"), "--storage-driver", "vfs")
    return _run("buildah", *place, *arguments, BUILDAH_ISOLATION="chroot").strip()


def _run(*command: str, check: bool = True, **environment: str) -> str:
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert not check or ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout

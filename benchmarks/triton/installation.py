"""Triton from wheels: the server of nvidia-pytriton, and an environment for its Python models.

`python -m benchmarks.triton.installation` installs both into the folder that git ignores.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.peers.environments import ENVIRONMENTS, environment

RELEASE = "2.51.0 (24.10)"
"""The Triton that the wheel holds."""

_WHEEL = "nvidia-pytriton==0.7.0"
_BACKEND = Path(__file__).parent / "backend" / "model.py"


class TritonMissingError(RuntimeError):
    """Triton cannot be installed here: says why."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Where Triton is."""

    server: Path
    """Folder of the server: its program, its backends."""
    environment: Path
    """Virtual environment that Python models run in."""


@cache
def installed() -> Installation:
    """Triton, installed on the first use. Raises `TritonMissingError`."""
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / "triton.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests may begin side by side
        try:
            return _install()
        except (subprocess.CalledProcessError, OSError) as error:
            raise TritonMissingError(
                f"{_WHEEL} and its environment could not be installed into {ENVIRONMENTS / 'triton'}: {error}"
            ) from error


def _install() -> Installation:
    # numpy 2 makes the tensors of this release's Python backend zeros, without a word.
    folder = environment("triton", ["numpy<2"])
    target = ENVIRONMENTS / "triton" / "server"
    server = target / "pytriton" / "tritonserver"
    if not server.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--target", target, _WHEEL], check=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise TritonMissingError(f"{_WHEEL} runs no models under Python {version}: use 3.11 or 3.12")
    _put(stub, server / "backends" / "python" / stub.name)
    _put(_BACKEND, server / "backends" / "onnxruntime" / "model.py")
    os.chmod(server / "bin" / "tritonserver", 0o755)
    return Installation(server=server, environment=folder)


def _put(source: Path, target: Path) -> None:
    """Copies a file unless it is there: a running server may have it open."""
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").rename(target)


if __name__ == "__main__":
    try:
        print(f"Triton {RELEASE} is in {installed().server}")
    except TritonMissingError as error:
        sys.exit(f"NO REAL TRITON, and no tests over it: {error}")

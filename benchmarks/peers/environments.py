"""A virtual environment for each peer, made once, in a folder that git ignores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE_TREE = Path(__file__).parents[2]
ENVIRONMENTS = SOURCE_TREE / ".cache" / "bench"

# What the samplers of Atelier import, so that a peer samples with the same code.
_SHARED = ("onnxruntime==1.31.1", "tritonclient[grpc]>=2.69,<3")


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The folder of the environment of that name, with its requirements installed."""
    folder = ENVIRONMENTS / name
    wanted = "\n".join([*requirements, *_SHARED])
    stamp = folder / "requirements.txt"
    if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
        print(f"making an environment for {name} in {folder} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip: list[str | Path] = [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, *requirements, *_SHARED], check=True)
        stamp.write_text(wanted, "utf-8")
    return folder

"""A small libnvidia-ml.so.1 of our own, compiled: see `fake_nvml.c`."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_nvml.c")


def build(folder: Path, *flags: str) -> Path:
    """Compiles the library into a folder, which is to be put into LD_LIBRARY_PATH; returns the folder."""
    library = folder / "libnvidia-ml.so.1"
    compiler = ["gcc", "-shared", "-fPIC", "-O1", *flags]
    subprocess.run([*compiler, "-o", str(library), str(SOURCE)], check=True, timeout=60)
    return folder

"""Writes the lists of what goes into the images.

Every package that an extra of pyproject.toml needs is there, in the version that this environment has:
the one that was tested.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent

# List, extra, what is left out of it, and what stands there in its place.
LISTS = (
    ("requirements-cpu.txt", "serving", (), ()),
    # CUDA and cuDNN follow from these extras; they are not in this environment.
    ("requirements-gpu.txt", "serving", ("onnxruntime",), ("onnxruntime-gpu[cuda,cudnn]=={onnxruntime}",)),
    # The build says which torch: with CUDA or without.
    ("requirements-training.txt", "export", ("torch",), ()),
)


def closure(wanted: list[Requirement]) -> dict[str, str]:
    """The version of each package that the requirements need, directly or not, by its canonical name."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "atelier":
                needs = extras()[extra] if extra else []
            else:
                found[name] = version(name).partition("+")[0]
                needs = [Requirement(line) for line in requires(name) or []]
            wanted += [n for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})]
    return found


def extras() -> dict[str, list[Requirement]]:
    """The extras of pyproject.toml, each with what every install needs."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    return {
        extra: [Requirement(line) for line in [*project["dependencies"], *needs]]
        for extra, needs in project["optional-dependencies"].items()
    }


def lists() -> dict[Path, str]:
    """The files as they ought to be."""
    files = {}
    for name, extra, without, instead in LISTS:
        pins = closure([Requirement(f"atelier[{extra}]")])
        lines = [f"{package}=={pin}" for package, pin in pins.items() if package not in without]
        lines += [line.format_map(pins) for line in instead]
        files[HERE / name] = "# Made by `make pins`.\n" + "\n".join(sorted(lines)) + "\n"
    return files


def main() -> int:
    """Write the lists."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path, text in lists().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

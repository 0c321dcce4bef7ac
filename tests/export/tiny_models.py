"""Models so small that publishing them costs nothing, and a publisher that dies.

Run as a script it publishes into a repository again and again, each time killed one file operation later:

    python tiny_models.py REPOSITORY COPIES

publishes into COPIES/0, COPIES/1, ..., each a copy of REPOSITORY, until one publication is not killed, and
prints how many were.
"""

import hashlib
import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import onnx

from export.publish import Candidate, publish
from serving.manifest import Manifest, TensorSpec, VersionRecord
from serving.manifest.acceleration import Acceleration, Profile

MUTATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
"""Audit events of file operations."""


def model(factor: float, weights: int = 4) -> bytes:
    """A graph that multiplies its input by `factor`; `weights` floats make it as large as one likes."""
    value = np.full(weights, factor, np.float32)
    nodes = [
        onnx.helper.make_node("Slice", ["weights", "zero", "one"], ["factor"]),
        onnx.helper.make_node("Mul", ["latent", "factor"], ["sample"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [onnx.helper.make_tensor_value_info("latent", onnx.TensorProto.FLOAT, ["rows", 4])],
        [onnx.helper.make_tensor_value_info("sample", onnx.TensorProto.FLOAT, ["rows", 4])],
        [
            onnx.numpy_helper.from_array(value, "weights"),
            onnx.numpy_helper.from_array(np.array([0]), "zero"),
            onnx.numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def candidates(
    name: str = "tiny",
    *,
    roles: tuple[str, ...] = ("decoder", "encoder"),
    factor: float = 1.0,
    weights: int = 4,
    labels: tuple[str, ...] = (),
) -> list[Candidate]:
    """The graphs of a model, one a role, with different bytes for different factors."""
    result = []
    for number, role in enumerate(roles):
        content = model(factor + number / 10, weights)
        manifest = Manifest(
            graph=name if len(roles) == 1 else f"{name}_{role}",
            model=name,
            role=role,
            family="toy",
            tasks=("generate",),
            roles=roles,
            inputs=(TensorSpec(name="latent", shape=(4,)),),
            outputs=(TensorSpec(name="sample", shape=(4,)),),
            class_labels=labels,
            metadata={"factor": str(factor)},
            acceleration=Acceleration(accelerator="tensorrt", profile=Profile(rows=(1, 8, 64))),
        )
        record = VersionRecord(sha256=hashlib.sha256(content).hexdigest(), max_abs_error=1e-6)
        result.append(Candidate(manifest=manifest, record=record, model=content))
    return result


def die_at(operation: int, folder: Path) -> None:
    """Arrange for this process to be killed in place of its n-th file operation below `folder`, from 0."""
    left = itertools.count(operation, -1)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in MUTATIONS and str(arguments[0]).startswith(str(folder)) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main(repository: Path, copies: Path) -> None:
    """Publish the second version of everything in a copy for each moment at which it can be killed."""
    for moment in itertools.count():
        copy = copies / str(moment)
        if repository.exists():
            shutil.copytree(repository, copy)
        child = os.fork()
        if child == 0:
            die_at(moment, copy)
            publish(copy, candidates(factor=2.0))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "publishing failed by itself"
            print(moment)
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

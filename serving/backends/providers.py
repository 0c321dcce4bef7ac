"""Which execution providers of onnxruntime a graph is to run on, with their options.

What was asked for by name is had or refused, never replaced: `auto` alone may end on the CPU.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.manifest.acceleration import Precision, Profile, profile_text

Device = Literal["auto", "cpu", "cuda"]
Accelerator = Literal["none", "tensorrt"]
Provider = tuple[str, dict[str, str]]

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# TensorRT up to 10 asks for leave to use what a graph holds; from 11 on the graph decides alone.
_LOW_PRECISION: dict[Precision, dict[str, str]] = {
    "float32": {},
    "float16": {"trt_fp16_enable": "1"},
    "bfloat16": {"trt_bf16_enable": "1"},
    "int8": {"trt_int8_enable": "1"},
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Where the settings want graphs to run."""

    device: Device = "auto"
    """`auto` takes a GPU if there is one, `cuda` is not ready without."""
    accelerator: Accelerator = "none"
    """`tensorrt` compiles graphs for the GPU, and is not ready where that cannot be."""
    cuda_graphs: bool = True
    """Whether the calls of each size of batch are recorded and replayed."""
    tf32: bool = False
    """Whether a GPU may round factors to 10 bits."""
    engine_cache: Path = Path("tensorrt_cache")
    """Where TensorRT keeps the engines it has built."""

    def gpu(self, known: Collection[str]) -> bool:
        """Whether a GPU is to be tried, with an onnxruntime that knows these providers.

        Raises UNAVAILABLE where one was asked for that this onnxruntime cannot have.
        """
        if self.accelerator == "tensorrt" and self.device == "cpu":
            raise unavailable(
                "accelerator is tensorrt and device is cpu: set device to cuda or auto, or accelerator to "
                "none"
            )
        if self.accelerator == "tensorrt" and TENSORRT not in known:
            raise unavailable(
                "accelerator is tensorrt, but this onnxruntime is built without it: install onnxruntime-gpu "
                "in place of onnxruntime, or set accelerator to none"
            )
        if self.device == "cuda" and CUDA not in known:
            raise unavailable(
                "device is cuda, but this onnxruntime is built without it: install onnxruntime-gpu in place "
                "of onnxruntime, or set device to auto or cpu"
            )
        return self.device != "cpu" and CUDA in known

    @property
    def demanded(self) -> str | None:
        """The provider that must be the first of a session; None where the CPU will do."""
        if self.accelerator == "tensorrt":
            return TENSORRT
        return CUDA if self.device == "cuda" else None


def gpu_providers(choice: Choice, manifest: Manifest, version: int, *, graphs: bool) -> tuple[Provider, ...]:
    """What to give onnxruntime for a graph on a GPU, the CPU last."""
    cuda = {
        "use_tf32": "1" if choice.tf32 else "0",
        # The exhaustive search of the default is done anew for every shape of input.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    if graphs:
        cuda["enable_cuda_graph"] = "1"
    rest: tuple[Provider, ...] = ((CUDA, cuda), (CPU, {}))
    if choice.accelerator == "none":
        return rest
    return ((TENSORRT, tensorrt_options(choice, manifest, version)), *rest)


def tensorrt_options(choice: Choice, manifest: Manifest, version: int) -> dict[str, str]:
    """Options of the TensorRT provider: engines for the shapes that the manifest declares, kept on disk.

    Each version has a folder of its own, as engines are named after nodes, which versions share.
    """
    record = manifest.versions[version]
    cache = choice.engine_cache.expanduser() / manifest.graph / f"{version}-{record.sha256[:12]}"
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        **_LOW_PRECISION[record.precision],
    }
    profile = _profile(manifest, record.min_rows)
    if profile is not None:
        for name, shapes in zip(("min", "opt", "max"), profile.shapes(manifest.inputs), strict=True):
            options[f"trt_profile_{name}_shapes"] = profile_text(shapes)
    return options


def engine_folder(providers: Collection[Provider]) -> Path | None:
    """The folder that TensorRT is told to keep engines in, which must be there."""
    return next((Path(o["trt_engine_cache_path"]) for name, o in providers if name == TENSORRT), None)


def unavailable(message: str) -> ServingError:
    """A device that was asked for and is not to be had, in the words of the settings."""
    return ServingError(Code.UNAVAILABLE, message)


def _profile(manifest: Manifest, least: int) -> Profile | None:
    """The declared profile, else one for all rows; None for images of any size that nobody declared."""
    if manifest.acceleration:
        return manifest.acceleration.profile
    if any(-1 in spec.shape for spec in manifest.inputs):
        return None
    most = manifest.max_batch_size
    return Profile(rows=(min(least, most), most, most))

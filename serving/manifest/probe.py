"""A probe: what a version computed for fixed inputs when it was exported, asked again when it is loaded.

A file with the right digest can still be computed wrongly: by a driver, a library or a kernel that is not the
one it was proven with. The inputs come from a counter-based generator (Philox, Salmon et al. 2011) keyed by a
seed and the tensor's name; of each output the record keeps its root mean square and projections on fixed
random signs, in which every element counts, so that they differ as the outputs do.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from serving.manifest.graph import Manifest
from serving.manifest.records import Probe, ProbeOutput
from serving.manifest.tensors import TensorSpec

_PROJECTIONS = 4
_DIGITS = 7
_LEAST_RMS = 1e-6  # of an output that is all zeros
_SIDE = 32  # of images whose size is the client's to choose

Tensors = Mapping[str, NDArray[np.generic]]


def probe_inputs(manifest: Manifest, *, seed: int, rows: int) -> dict[str, NDArray[np.generic]]:
    """The inputs of a probe, each [rows, ...]: classes, images and noise levels uniform, all else normal."""
    return {spec.name: _draw(spec, manifest, seed, rows) for spec in manifest.inputs}


def summarise(outputs: Tensors, *, seed: int, rows: int, tolerance: float = 0.02) -> Probe:
    """The probe of a graph that gave these outputs for `probe_inputs`."""
    return Probe(
        seed=seed,
        rows=rows,
        tolerance=tolerance,
        outputs={name: _summary(name, array, seed) for name, array in outputs.items()},
    )


def difference(probe: Probe, outputs: Tensors) -> str | None:
    """How outputs differ from those of the probe by more than it tolerates; None where they do not."""
    for name, recorded in probe.outputs.items():
        if name not in outputs:
            return f"it gives no {name}"
        if not np.isfinite(outputs[name]).all():
            return f"its {name} is not finite"
        found = _summary(name, outputs[name], probe.seed)
        pairs = zip((found.rms, *found.projections), (recorded.rms, *recorded.projections), strict=True)
        worst = max(abs(a - b) for a, b in pairs)
        allowed = probe.tolerance * max(recorded.rms, _LEAST_RMS)
        if worst > allowed:
            return f"its {name} differs by {worst:.2g}, of which {allowed:.2g} is tolerated"
    return None


def _draw(spec: TensorSpec, manifest: Manifest, seed: int, rows: int) -> NDArray[np.generic]:
    random = _generator(seed, spec.name)
    side = -(-_SIDE // spec.multiple_of) * spec.multiple_of
    shape = (rows, *(side if axis < 0 else axis for axis in spec.shape))
    if spec.dtype == "int64":
        return random.integers(0, max(1, len(manifest.class_labels)), shape, np.int64)
    if spec.name == "noise_level":  # within every schedule's
        return random.random(shape, np.float32)
    if spec.name == "image":
        low, high = manifest.value_range
        return (low + (high - low) * random.random(shape, np.float32)).astype(np.float32)
    return random.standard_normal(shape, np.float32)


def _summary(name: str, array: NDArray[np.generic], seed: int) -> ProbeOutput:
    values = np.asarray(array, np.float64).ravel()
    random = _generator(seed, f"signs of {name}")
    signs = random.integers(0, 2, (_PROJECTIONS, values.size), np.int8) * 2.0 - 1.0
    projections = signs @ values / math.sqrt(values.size)
    return ProbeOutput(
        rms=_rounded(math.sqrt(float(values @ values) / values.size)),
        projections=tuple(_rounded(float(value)) for value in projections),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, zlib.crc32(name.encode())], np.uint64)))

"""The probe of a version: what it computes for fixed inputs where it is proven, for wherever it is loaded."""

from __future__ import annotations

import onnxruntime

from serving.manifest import Manifest, Probe
from serving.manifest.probe import probe_inputs, summarise

SEED = 0
ROWS = 2


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """The file under onnxruntime on one CPU thread, as when it was compared with torch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def probe(manifest: Manifest, session: onnxruntime.InferenceSession) -> Probe:
    """What a graph gives there for fixed inputs."""
    names = [spec.name for spec in manifest.outputs]
    outputs = session.run(names, probe_inputs(manifest, seed=SEED, rows=ROWS))
    return summarise(dict(zip(names, outputs, strict=True)), seed=SEED, rows=ROWS)

"""Opening onnxruntime sessions on the device of the settings, and saying so where it is not to be had."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

from serving.backends.example import example
from serving.backends.providers import (
    CPU,
    CUDA,
    TENSORRT,
    Choice,
    Provider,
    engine_folder,
    gpu_providers,
    unavailable,
)
from serving.manifest import Manifest

log = logging.getLogger(__name__)

_ROWS_TRIED = 2  # what goes wrong with more than one row does so with two
_NOT_ALL_ON_GPU = "graph capture"
_FLAGS = {TENSORRT: "accelerator is tensorrt", CUDA: "device is cuda"}
_REMEDIES = {
    TENSORRT: "the GPU, its driver, CUDA, cuDNN or TensorRT's libraries are missing or broken; repair that "
    "(pip install tensorrt), or set accelerator to none",
    CUDA: "the GPU, its driver, CUDA or cuDNN is missing or broken; repair it, or set device to auto or cpu",
}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A session, and what it turned out to be."""

    session: Any
    """The `onnxruntime.InferenceSession`."""
    provider: str
    """The provider that it computes on first of all."""
    graphs: bool = False
    """Whether calls may be recorded as CUDA graphs."""


class Sessions:
    """Opens sessions. On a GPU one after the other, under `device`.

    While a CUDA graph is being recorded no other thread may ask the driver for memory: whoever records
    holds `device` too.
    """

    def __init__(self, choice: Choice, *, threads: int, rewrite: bool = True) -> None:
        """With `rewrite` graphs are rewritten for the CPU, where they run on that."""
        self.device = Lock()
        self._choice = choice
        self._threads = threads
        self._rewrite = rewrite
        self._fell_back = False

    def open(self, model: bytes, manifest: Manifest, version: int, *, graphs: bool) -> Opened:
        """A session of the model on the device of the settings; `graphs` allows CUDA graphs.

        Raises UNAVAILABLE where a device was asked for and is not to be had, and whatever onnxruntime raises
        for a model that does not load.
        """
        _, known = onnxruntime_and_providers()
        if not self._choice.gpu(known) or self._fell_back:
            return self._on_cpu(model, manifest)
        with self.device:
            try:
                opened = self._on_gpu(model, manifest, version, graphs)
            except Exception as error:  # onnxruntime's exceptions have no common base
                return self._without_gpu(model, manifest, str(error))
            # onnxruntime leaves out what it cannot have and goes on: what counts is what the session got.
            if opened.provider != self._wanted():
                return self._without_gpu(model, manifest, f"onnxruntime gave {opened.provider}")
            return opened

    def _on_gpu(self, model: bytes, manifest: Manifest, version: int, graphs: bool) -> Opened:
        graphs = graphs and self._choice.cuda_graphs and self._choice.accelerator == "none"
        try:
            return self._open(model, gpu_providers(self._choice, manifest, version, graphs=graphs), graphs)
        except Exception as error:
            if not graphs or _NOT_ALL_ON_GPU not in str(error):
                raise
        log.info("%s is called without CUDA graphs: parts of it run on the CPU", manifest.graph)
        return self._open(model, gpu_providers(self._choice, manifest, version, graphs=False))

    def _wanted(self) -> str:
        return self._choice.demanded or CUDA

    def _without_gpu(self, model: bytes, manifest: Manifest, reason: str) -> Opened:
        demanded = self._choice.demanded
        # A model that no device can load is to blame itself, and says why when it is opened here.
        opened = self._on_cpu(model, manifest)
        if demanded:
            raise unavailable(f"{_FLAGS[demanded]}, but {reason}: {_REMEDIES[demanded]}")
        if not self._fell_back:
            log.warning("no working GPU: everything runs on the CPU, though this onnxruntime knows CUDA")
            log.info("what was tried on the GPU: %s", reason)
        self._fell_back = True
        return opened

    def _on_cpu(self, model: bytes, manifest: Manifest) -> Opened:
        """The graph rewritten; as it was published where that is not wanted or does not come off."""
        if self._rewrite:
            try:
                from serving.backends.rewriting import rewritten  # with onnx, which takes its time too

                shorter = rewritten(model)
                if shorter != model:
                    opened = self._open(shorter, [(CPU, {})])
                    opened.session.run(None, example(manifest, min(_ROWS_TRIED, manifest.max_batch_size)))
                    return opened
            except Exception as error:  # a graph that no rule has foreseen, and it is served all the same
                log.warning("%s is served as it was published, not rewritten: %s", manifest.graph, error)
        return self._open(model, [(CPU, {})])

    def _open(self, model: bytes, providers: Sequence[Provider], graphs: bool = False) -> Opened:
        onnxruntime, _ = onnxruntime_and_providers()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Threads that spin between calls take the cores from the other instances.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        folder = engine_folder(providers)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        # By default a session that fails on its provider goes on with the next one, and prints so.
        session = onnxruntime.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
        return Opened(session=session, provider=session.get_providers()[0], graphs=graphs)


@cache
def onnxruntime_and_providers() -> tuple[Any, tuple[str, ...]]:
    """The module, and the providers it is built with; imported by the first load, as it takes its time.

    Its wheels have telemetry on: it is turned off here, where the environment does not ask for it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    known = tuple(onnxruntime.get_available_providers())
    if CUDA in known:
        onnxruntime.preload_dlls()  # finds the CUDA and cuDNN that pip installed, which no loader path names
    return onnxruntime, known

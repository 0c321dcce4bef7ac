"""The embedded engine: onnxruntime in this process."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from serving.calls import Tensors
from serving.catalog import MODEL_FILE, Index, Parsed, scan
from serving.errors import Code, ServingError
from serving.manifest import Manifest, TensorSpec
from serving.processors import processors

if TYPE_CHECKING:
    from serving.settings import Settings

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_NUMPY_DTYPES = {"float32": np.float32, "int64": np.int64}
_WARM_UP_SIDE = 32
_READ_AGAIN = 1.0  # seconds after which a file that could not be read may be


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """A version of a graph that can be called."""

    session: Any
    outputs: tuple[str, ...]

    def run(self, inputs: Tensors) -> Tensors:
        results = self.session.run(self.outputs, inputs)
        return dict(zip(self.outputs, results, strict=True))


class OnnxRuntimeBackend:
    """Graphs of a repository, each one session that `instances` threads call at a time.

    A session holds the weights once and may be called from several threads; with one thread inside each call
    that is as fast as a session for each thread, and smaller and sooner loaded by that factor.
    """

    def __init__(self, *, repository: Path, device: Device, instances: int, threads: int) -> None:
        self.repository = repository
        self.device = device
        self.threads = threads
        self._instances = instances
        self._processors = processors()
        self._index: Index | None = None
        self._parsed: Parsed = {}
        self._sessions: dict[tuple[str, int], _Loaded] = {}
        self._providers: set[str] = set()
        self._fell_back = False
        self._closed = False
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(self.slots(), thread_name_prefix="onnxruntime")
        # Apart from the calls, none of which waits for a model that is being read.
        self._loaders = ThreadPoolExecutor(self.slots(), thread_name_prefix="loading")

    @classmethod
    def from_settings(cls, settings: Settings) -> OnnxRuntimeBackend:
        """The backend that the settings describe."""
        return cls(
            repository=settings.repository,
            device=settings.device,
            instances=settings.instances,
            threads=settings.threads,
        )

    async def index(self) -> Index:
        """The repository as it stands."""
        self._index = await asyncio.to_thread(scan, self.repository, self._parsed)
        return self._index

    async def load(self, graph: str, version: int) -> None:
        """Reads, checks and warms up one version of a graph."""
        index = self._index or await self.index()
        manifest = next((m for m in index.manifests if m.graph == graph), None)
        if manifest is None or version not in manifest.versions:
            raise ServingError(Code.NOT_FOUND, f"no version {version} of {graph} in {self.repository}")
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._loaders, self._open, manifest, version)
        self._sessions[graph, version] = loaded
        self._providers.add(loaded.session.get_providers()[0])

    async def unload(self, graph: str, version: int) -> None:
        """Lets the session go; calls under way keep it until they end."""
        self._sessions.pop((graph, version), None)

    def ready(self, graph: str, version: int) -> bool:
        """Whether the session is there."""
        return (graph, version) in self._sessions

    def instances(self, graph: str) -> int:
        """As many as there are slots: any graph may have all of them."""
        return self.slots()

    def slots(self) -> int:
        """Threads that call: by default one a core, and on a GPU one, which has the whole device."""
        if self._instances:
            return self._instances
        return 1 if self.device == "cuda" or _CUDA in self._providers else self._processors

    async def infer(self, graph: str, version: int, inputs: Tensors) -> Tensors:
        """One call in a thread of the pool."""
        loaded = self._sessions.get((graph, version))
        if loaded is None:
            raise ServingError(Code.UNAVAILABLE, f"version {version} of {graph} is not loaded")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, loaded.run, inputs)

    def describe(self) -> Mapping[str, Any]:
        """Device, providers, version and threads."""
        return {
            "backend": "onnxruntime",
            "version": _onnxruntime()[0].__version__,
            "device": self.device,
            "providers": sorted(self._providers),
            "instances": self.slots(),
            "threads": self.threads,
        }

    async def close(self) -> None:
        """Waits for calls under way, then lets everything go."""
        self._closed = True
        await asyncio.to_thread(self._loaders.shutdown)
        await asyncio.to_thread(self._pool.shutdown)
        self._sessions.clear()

    def _open(self, manifest: Manifest, version: int) -> _Loaded:
        if self._closed:
            raise ServingError(Code.UNAVAILABLE, "the gateway is stopping")
        record = manifest.versions[version]
        path = self.repository / manifest.graph / str(version) / MODEL_FILE
        try:
            model = path.read_bytes()
        except OSError as error:
            reason = f"{path} cannot be read: {error.strerror}"
            raise ServingError(Code.FAILED_PRECONDITION, reason, retry_after=_READ_AGAIN) from error
        digest = hashlib.sha256(model).hexdigest()
        if digest != record.sha256:
            raise _broken(
                f"{path} has sha256 {digest[:12]}..., but {record.sha256[:12]}... was published: "
                f"it was changed or copied in part; export it again"
            )
        try:
            session = self._session(model)
        except ServingError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise _broken(f"{path} does not load: {error}") from error
        loaded = _Loaded(session=session, outputs=tuple(spec.name for spec in manifest.outputs))
        try:
            loaded.run(_example(manifest, record.min_rows))
        except Exception as error:
            raise _broken(f"{path} does not run on inputs of its config.pbtxt: {error}") from error
        return loaded

    def _session(self, model: bytes) -> Any:
        onnxruntime, cuda = _onnxruntime()
        if self.device == "cuda" and not cuda:
            raise ServingError(
                Code.UNAVAILABLE,
                "device is cuda, but this onnxruntime is built without it: install onnxruntime-gpu in place "
                "of onnxruntime, or set device to auto or cpu",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        # Threads that spin between calls take the cores from the other instances.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = [_CUDA] if cuda and self.device != "cpu" and not self._fell_back else []
        session = onnxruntime.InferenceSession(model, options, providers=[*wanted, _CPU])
        # onnxruntime falls back to the CPU and goes on: what counts is what the session really got.
        if wanted and session.get_providers()[0] != _CUDA:
            self._no_gpu()
        return session

    def _no_gpu(self) -> None:
        if self.device == "cuda":
            raise ServingError(
                Code.UNAVAILABLE,
                f"device is cuda, but onnxruntime gave {_CPU}: the GPU, its driver, CUDA or cuDNN is missing "
                f"or broken; repair it, or set device to auto or cpu",
            )
        with self._lock:
            if not self._fell_back:
                log.warning("no working GPU: everything runs on the CPU, though this onnxruntime knows CUDA")
            self._fell_back = True


@cache
def _onnxruntime() -> tuple[Any, bool]:
    """The module, and whether it is built with CUDA; imported by the first load, as it takes its time."""
    import onnxruntime

    cuda = _CUDA in onnxruntime.get_available_providers()
    if cuda:
        onnxruntime.preload_dlls()  # finds the CUDA and cuDNN that pip installed, which no loader path names
    return onnxruntime, cuda


def _example(manifest: Manifest, rows: int) -> dict[str, Any]:
    """Inputs of zeros with the least rows that the graph is ever called with."""
    return {spec.name: np.zeros((rows, *_shape(spec)), _NUMPY_DTYPES[spec.dtype]) for spec in manifest.inputs}


def _shape(spec: TensorSpec) -> list[int]:
    side = -(-_WARM_UP_SIDE // spec.multiple_of) * spec.multiple_of
    return [side if axis < 0 else axis for axis in spec.shape]


def _broken(message: str) -> ServingError:
    return ServingError(Code.FAILED_PRECONDITION, message)

"""The embedded engine: onnxruntime in this process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from serving.backends.binding import Bound, Direct, can_be_bound
from serving.backends.example import example
from serving.backends.providers import CPU, Accelerator, Choice, Device
from serving.backends.sessions import Sessions, onnxruntime_and_providers
from serving.backends.workers import Workers
from serving.calls import Computed, Tensors
from serving.catalog import MODEL_FILE, Index, Parsed, scan
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.process.processors import processors

if TYPE_CHECKING:
    from serving.settings import Settings

_NICENESS = 5
_READ_AGAIN = 1.0  # seconds after which a file that could not be read may be


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """A version of a graph that can be called."""

    calls: Direct | Bound
    provider: str


class OnnxRuntimeBackend:
    """Graphs of a repository, each one session that `instances` threads call at a time.

    A session holds the weights once and may be called from several threads; with one thread inside each call
    that is as fast as a session for each thread, and smaller and sooner loaded by that factor. On a GPU all
    calls come from one thread, as a CUDA graph is known to the thread alone that recorded it.
    """

    def __init__(
        self,
        *,
        repository: Path,
        device: Device,
        instances: int,
        threads: int,
        accelerator: Accelerator = "none",
        cuda_graphs: bool = True,
        tf32: bool = False,
        engine_cache: Path = Path("tensorrt_cache"),
        rewrite_graphs: bool = True,
    ) -> None:
        self.repository = repository
        self.choice = Choice(
            device=device,
            accelerator=accelerator,
            cuda_graphs=cuda_graphs,
            tf32=tf32,
            engine_cache=engine_cache,
        )
        self.threads = threads
        self._instances = instances
        self._processors = processors()
        self._index: Index | None = None
        self._parsed: Parsed = {}
        self._sessions: dict[tuple[str, int], _Loaded] = {}
        self._providers: set[str] = set()
        self._opener = Sessions(self.choice, threads=threads, rewrite=rewrite_graphs)
        self._closed = False
        # Threads inside a call are onnxruntime's, and it is as slow as the one that stands back.
        self._workers = Workers(
            self.slots(),
            "onnxruntime",
            niceness=_NICENESS if threads == 1 else 0,
            fill_cores=threads == 1 and self.slots() >= self._processors,
        )
        self._express = Workers(self.slots(), "express")
        self._gpu_workers = Workers(max(instances, 1), "gpu")
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
            accelerator=settings.accelerator,
            cuda_graphs=settings.cuda_graphs,
            tf32=settings.tf32,
            engine_cache=settings.engine_cache,
            rewrite_graphs=settings.rewrite_graphs,
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
        self._providers.add(loaded.provider)

    async def unload(self, graph: str, version: int) -> None:
        """Lets the session go; calls under way keep it until they end."""
        loaded = self._sessions.pop((graph, version), None)
        if loaded is not None and loaded.provider != CPU and not self._closed:
            await self._gpu_workers.call(loaded.calls.release)

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
        return self._processors if self.computes_here() else 1

    def computes_here(self) -> bool:
        """Whether it does so on cores and not on a GPU."""
        return not (self.choice.demanded or self._providers - {CPU})

    async def infer(
        self, graph: str, version: int, inputs: Tensors, *, first: bool = False, here: bool = False
    ) -> Computed:
        """One call, in a thread of its own unless it may be computed here."""
        loaded = self._sessions.get((graph, version))
        if loaded is None:
            raise ServingError(Code.UNAVAILABLE, f"version {version} of {graph} is not loaded")
        if loaded.provider != CPU:
            return await self._gpu_workers.call(_timed, loaded.calls, inputs, first=first)
        if here:
            return _timed(loaded.calls, inputs)
        # The system's scheduler shares the cores better than any order of calls on its busy threads.
        workers = self._express if first else self._workers
        return await workers.call(_timed, loaded.calls, inputs)

    def folder(self, graph: str) -> Path | None:
        """The graph's folder."""
        return self.repository / graph

    def describe(self) -> Mapping[str, Any]:
        """Device, providers, version and threads."""
        return {
            "backend": "onnxruntime",
            "version": onnxruntime_and_providers()[0].__version__,
            "device": self.choice.device,
            "accelerator": self.choice.accelerator,
            "providers": sorted(self._providers),
            "instances": self.slots(),
            "threads": self.threads,
        }

    async def close(self) -> None:
        """Waits for calls under way, then lets everything go."""
        self._closed = True
        await asyncio.to_thread(self._loaders.shutdown)
        await asyncio.to_thread(self._workers.close)
        await asyncio.to_thread(self._express.close)
        await asyncio.to_thread(self._gpu_workers.close)
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
            loaded = self._loaded(model, manifest, version)
        except ServingError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise _broken(f"{path} does not load: {error}") from error
        try:
            loaded.calls.warm_up(example(manifest, record.min_rows))
        except Exception as error:
            raise _broken(f"{path} does not run on inputs of its config.pbtxt: {error}") from error
        return loaded

    def _loaded(self, model: bytes, manifest: Manifest, version: int) -> _Loaded:
        fixed = can_be_bound(manifest)
        opened = self._opener.open(model, manifest, version, graphs=fixed and self._instances <= 1)
        if opened.provider == CPU or not fixed:
            return _Loaded(calls=Direct(opened.session, manifest), provider=opened.provider)
        bound = Bound(
            opened.session,
            manifest,
            least=manifest.versions[version].min_rows,
            device=self._opener.device,
            graphs=opened.graphs,
        )
        return _Loaded(calls=bound, provider=opened.provider)


def _timed(calls: Direct | Bound, inputs: Tensors) -> Computed:
    began = perf_counter()
    outputs = calls.run(inputs)
    return Computed(outputs, perf_counter() - began)


def _broken(message: str) -> ServingError:
    return ServingError(Code.FAILED_PRECONDITION, message)

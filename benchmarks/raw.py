"""The limit: onnxruntime called in a loop, at every batch size, number of threads and of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.backends.rewriting import rewritten
from serving.catalog import MODEL_FILE
from serving.manifest import Manifest

_AGAIN = 3
_DTYPES = {"float32": np.float32, "int64": np.int64}


@dataclass(frozen=True, kw_only=True)
class Raw:
    """How onnxruntime is called."""

    batch: int
    """Rows of a call."""
    threads: int
    """Threads within a call."""
    sessions: int
    """Sessions, each called by a thread of its own."""

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.sessions} × {self.threads} thread{'s'[: self.threads - 1]}"


def layouts(cores: int) -> list[tuple[int, int]]:
    """(sessions, threads within a call) that make use of all cores: one a core, one for all, both."""
    return sorted({(cores, 1), (1, cores), (cores, cores)}, reverse=True)


def inputs(manifest: Manifest, rows: int) -> dict[str, NDArray[Any]]:
    """Random inputs for a graph: normal for what is real, class 0."""
    generator = np.random.default_rng(0)
    return {
        spec.name: generator.standard_normal((rows, *spec.shape)).astype(np.float32)
        if spec.dtype == "float32"
        else np.zeros((rows, *spec.shape), _DTYPES[spec.dtype])
        for spec in manifest.inputs
    }


def session(repository: Path, manifest: Manifest, threads: int, *, rewrite: bool = False) -> Any:
    """A session on the newest version of a graph; with `rewrite` on what the gateway makes of it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = repository / manifest.graph / str(max(manifest.versions)) / MODEL_FILE
    model = path.read_bytes()
    model = rewritten(model) if rewrite else model
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class RawLoop:
    """Sessions of one graph, kept so that each measurement is of calls alone."""

    def __init__(self, repository: Path, manifest: Manifest, *, rewrite: bool = False) -> None:
        """With `rewrite` it is the graph as the gateway calls it, and not the published one."""
        self._repository = repository
        self._manifest = manifest
        self._rewrite = rewrite
        self._sessions: dict[tuple[int, int], list[Any]] = {}

    def rows_per_second(self, how: Raw, seconds: float) -> float:
        """Rows computed in a second by sessions that are called in a loop for so long, side by side."""
        key = (how.sessions, how.threads)
        if key not in self._sessions:
            self._sessions[key] = [self._session(how.threads) for _ in range(how.sessions)]
        feed = inputs(self._manifest, how.batch)
        ready = Barrier(how.sessions)

        def loop(opened: Any) -> float:
            opened.run(None, feed)
            ready.wait(timeout=60)
            calls = 0
            began = perf_counter()
            while perf_counter() - began < seconds:
                opened.run(None, feed)
                calls += 1
            return calls * how.batch / (perf_counter() - began)

        with ThreadPoolExecutor(how.sessions) as pool:
            return sum(pool.map(loop, self._sessions[key]))

    def seconds_per_call(self, batch: int, calls: int) -> list[float]:
        """Times of single calls by one thread, nothing else going on."""
        opened = self._sessions.setdefault((1, 1), [self._session(1)])[0]
        feed = inputs(self._manifest, batch)
        opened.run(None, feed)
        times = []
        for _ in range(calls):
            began = perf_counter()
            opened.run(None, feed)
            times.append(perf_counter() - began)
        return times

    def _session(self, threads: int) -> Any:
        return session(self._repository, self._manifest, threads, rewrite=self._rewrite)

    def best(self, sweep: Mapping[Raw, float], seconds: float) -> Raw:
        """The fastest way to call: of those that were fastest in a sweep, each measured again for longer."""
        fastest = sorted(sweep, key=sweep.__getitem__, reverse=True)[:_AGAIN]
        return max(fastest, key=lambda how: self.rows_per_second(how, seconds))

    def sweep(self, cores: int, batches: list[int], seconds: float) -> Mapping[Raw, float]:
        """Rows a second of every way to call."""
        return {
            how: self.rows_per_second(how, seconds)
            for sessions, threads in layouts(cores)
            for batch in batches
            for how in [Raw(batch=batch, threads=threads, sessions=sessions)]
        }

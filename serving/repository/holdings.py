"""What is loaded and who uses it: a version goes when it is retired and its last request has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from serving.backends import Backend
from serving.batching.engine import Engine
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.manifest.probe import difference, probe_inputs
from serving.process.memory import give_back

log = logging.getLogger(__name__)

Graph = tuple[str, int]
"""Name of a graph, and a version of it."""


@dataclass(kw_only=True, eq=False)
class _Held:
    """A loaded version of a graph."""

    manifest: Manifest
    leases: int = 0
    retired: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class _Lease(AbstractContextManager[None]):
    """Holds loaded versions for a block; a generator, which each request has one of, would take longer."""

    def __init__(
        self, held: list[tuple[Graph, _Held]], unload_if_unused: Callable[[Graph, _Held], None]
    ) -> None:
        self._held = held
        self._unload_if_unused = unload_if_unused

    def __enter__(self) -> None:
        for _, held in self._held:
            held.leases += 1

    def __exit__(self, *_: object) -> None:
        for graph, held in self._held:
            held.leases -= 1
            self._unload_if_unused(graph, held)


class Holdings:
    """The loaded versions of graphs. Lives in one event loop.

    `manifests` is what the engine knows of them, and is kept up to date here.
    """

    def __init__(self, backend: Backend, engine: Engine, manifests: dict[Graph, Manifest]) -> None:
        self._backend = backend
        self._engine = engine
        self._manifests = manifests
        self._held: dict[Graph, _Held] = {}
        self._leaving: dict[Graph, _Held] = {}
        self._unloads: set[asyncio.Task[None]] = set()

    def manifest(self, graph: str, version: int) -> Manifest | None:
        """What a version was loaded as, while it may be asked for."""
        held = self._held.get((graph, version))
        return None if held is None or held.retired else held.manifest

    def of_model(self, model: str) -> list[Graph]:
        """The versions of a model's graphs that may be asked for, sorted."""
        return sorted(
            graph for graph, held in self._held.items() if held.manifest.model == model and not held.retired
        )

    def retired(self) -> list[Graph]:
        """Versions that only wait for their last requests, or are being unloaded, sorted."""
        return sorted({*(graph for graph, held in self._held.items() if held.retired), *self._leaving})

    async def load(self, manifest: Manifest, version: int, before: int | None = None) -> None:
        """Loads a version, has it compute its probe, and takes it to cost what the version `before` does.

        One that is loaded already stays as it is, unless its engine has lost it, and one that waits to be
        unloaded is kept. Raises `ServingError` as `Backend.load` does, and where the version is loaded as
        another file or the probe comes out differently. Cancelled, it leaves nothing behind.
        """
        key = (manifest.graph, version)
        held = self._held.get(key)
        if held is not None and not same_version(held.manifest, manifest, version):
            if not held.retired:
                raise _changed(manifest.graph, version)
            await held.gone.wait()
            held = None
        if held is not None:
            held.retired = False
            if self._backend.ready(*key):
                return
        if key in self._leaving:
            await self._leaving[key].gone.wait()
        await self._backend.load(*key)
        try:
            await self._check_probe(manifest, version)
        except BaseException:
            await asyncio.shield(self._backend.unload(*key))
            raise
        if key not in self._held:
            self._manifests[key] = manifest
            self._held[key] = _Held(manifest=manifest)
        if before is not None:
            self._engine.inherit(manifest.graph, version, before)

    def lease(self, graphs: Iterable[Graph]) -> AbstractContextManager[None]:
        """Holds loaded versions while a request lasts, whatever becomes of them meanwhile."""
        return _Lease([(graph, self._held[graph]) for graph in graphs], self._unload_if_unused)

    def retire(self, graph: Graph) -> None:
        """Nobody asks for it any more: it is unloaded as soon as nobody uses it."""
        held = self._held.get(graph)
        if held is not None:
            held.retired = True
            self._unload_if_unused(graph, held)

    async def settled(self) -> None:
        """Until nothing is retired that could be unloaded."""
        while self._unloads:
            await asyncio.wait(self._unloads)

    async def _check_probe(self, manifest: Manifest, version: int) -> None:
        probe = manifest.versions[version].probe
        if probe is None:
            return
        inputs = probe_inputs(manifest, seed=probe.seed, rows=probe.rows)
        outputs = (await self._backend.infer(manifest.graph, version, inputs)).outputs
        problem = difference(probe, outputs)
        if problem:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"version {version} of {manifest.graph} does not compute here what it computed when it was "
                f"exported: {problem}; compare drivers and libraries, or export it again",
            )

    def _unload_if_unused(self, graph: Graph, held: _Held) -> None:
        if held.retired and not held.leases and self._held.get(graph) is held:
            del self._held[graph]
            self._leaving[graph] = held
            task = asyncio.create_task(self._unload(graph, held))
            self._unloads.add(task)
            task.add_done_callback(self._unloads.discard)

    async def _unload(self, graph: Graph, held: _Held) -> None:
        try:
            await self._backend.unload(*graph)
        except Exception:
            log.exception("%s version %d could not be unloaded", *graph)
        finally:
            self._manifests.pop(graph, None)
            self._engine.forget(*graph)
            del self._leaving[graph]
            held.gone.set()
        log.info("%s version %d is unloaded", *graph)
        await asyncio.to_thread(give_back)


def same_version(one: Manifest, other: Manifest, version: int) -> bool:
    """Whether two manifests mean the same file, called the same way, by a version."""
    if one is other:
        return version in one.versions
    records = (one.versions.get(version), other.versions.get(version))
    if records[0] is None or records[1] is None or records[0].sha256 != records[1].sha256:
        return False
    return (one.model, one.role, one.inputs, one.outputs) == (
        other.model,
        other.role,
        other.inputs,
        other.outputs,
    )


def _changed(graph: str, version: int) -> ServingError:
    return ServingError(
        Code.FAILED_PRECONDITION,
        f"version {version} of {graph} has another digest or other tensors than the one that is served, and "
        f"versions never change: publish it as a new version, or unload the model first",
    )

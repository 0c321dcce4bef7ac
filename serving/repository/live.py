"""The live repository: what is served now, replaced whole as what lies in the folder changes.

A new version is loaded beside the old one, checked and warmed, and only then do requests go to it; those
under way end on the version that they began with. What is broken is refused with the reason, and what was
served before goes on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from serving.backends import Backend
from serving.catalog import Catalog, PublicModel, build
from serving.errors import Code, ServingError
from serving.manifest import Manifest, VersionRecord
from serving.observing.metrics import Metrics
from serving.repository.holdings import Graph, Holdings, same_version
from serving.repository.refusals import Refusals

log = logging.getLogger(__name__)

_PATIENCE = 2
"""Looks in a row in which a version must be missing to be gone: it may be in the middle of being copied."""


class UnreachableError(Exception):
    """The repository cannot be read; what is served goes on."""


class Repository:
    """The models of a repository, the versions that are loaded, and who holds them. Lives in one event loop.

    `only` names the models that are meant to be loaded, None is all that there are.
    """

    def __init__(
        self, backend: Backend, holdings: Holdings, *, only: Iterable[str] | None, metrics: Metrics
    ) -> None:
        self.catalog = Catalog(models={}, refused={})
        self.only = None if only is None else set(only)
        self.unreachable: str | None = None
        self._backend = backend
        self._holdings = holdings
        self._metrics = metrics
        self._found = Catalog(models={}, refused={})
        self._stamps: Mapping[Graph, Hashable] = {}
        self._missed: Counter[tuple[str, int]] = Counter()
        self._refusals = Refusals(metrics)
        self._changing: dict[str, asyncio.Lock] = {}

    def __contains__(self, name: object) -> bool:
        """Whether that is the name of a model."""
        return name in self.catalog.models

    def find(self, name: str, asked: int, task: str, key: str = "") -> tuple[PublicModel, int]:
        """The model and version of a request, which can do the task. It is loaded now: `keep` it so.

        `key` decides where a canary shares the requests out: the same key, the same version.
        """
        model = self.catalog.model(name)
        model.require(task)
        ready = self.ready_versions(model)
        version = model.version(asked, ready, key)
        if version not in ready and not self._ready(model, version):
            raise self._not_ready(model, version)
        return model, version

    def keep(self, model: PublicModel, version: int) -> AbstractContextManager[None]:
        """Holds a version that is loaded until the block ends."""
        return self._holdings.lease((manifest.graph, version) for manifest in model.graphs.values())

    def ready_versions(self, model: PublicModel) -> list[int]:
        """Versions that new requests may go to."""
        return [version for version in model.versions if self._ready(model, version)]

    def refusal(self, model: PublicModel, version: int) -> ServingError | None:
        """Why a version of a model is not served, if it was refused."""
        errors = (self._refusals.error(manifest.graph, version) for manifest in model.graphs.values())
        return next((error for error in errors if error is not None), None)

    def asked_for(self, name: str) -> bool:
        """Whether a model is meant to be loaded."""
        return self.only is None or name in self.only

    def loaded(self) -> list[tuple[Manifest, int]]:
        """The graphs of the newest loaded version of each model."""
        return [
            (manifest, max(ready))
            for model in self.catalog.models.values()
            if (ready := self.ready_versions(model))
            for manifest in model.graphs.values()
        ]

    def public_name(self, name: str) -> str:
        """The model of that name, or the one that has a graph of that name; NOT_FOUND otherwise."""
        for model in (*self.catalog.models.values(), *self._found.models.values()):
            if name != model.name and name in {manifest.graph for manifest in model.graphs.values()}:
                return model.name
        return self.catalog.model(name).name

    def folder(self, graph: str) -> Path | None:
        """Where a graph lies; None where that is out of sight."""
        return self._backend.folder(graph)

    async def look(self, *, patient: bool) -> None:
        """Reads what there is, and loads nothing yet.

        Where it is `patient`, what is missing is gone only when it is missing again the next time. Raises
        `UnreachableError` where the repository cannot be read, or is suddenly empty: a volume that is not
        mounted is an empty folder.
        """
        try:
            index = await self._backend.index()
        except (OSError, ServingError) as error:
            raise self._lost(f"the repository cannot be read: {error}") from error
        if not index.manifests and not index.refused and self.catalog.models:
            raise self._lost("the repository is empty, as if its volume were not mounted")
        if self.unreachable is not None:
            log.info("the repository is there again")
        self.unreachable = None
        self._metrics.repository_reachable.set(1)
        self._found, self._stamps = build(index), index.stamps
        self._count_missing(1 if patient else _PATIENCE)
        for found in self._found.models.values():
            if found.name not in self.catalog.models:
                self._show(_entry(found, found.graphs, found.wanted))
        self.tell()

    async def settle(self, *, newest_alone: bool = False) -> None:
        """Brings every model, all at a time, to what the last look found."""
        names = sorted({*self._found.models, *self.catalog.models})
        await asyncio.gather(*(self.settle_model(name, newest_alone=newest_alone) for name in names))

    async def settle_model(self, name: str, *, newest_alone: bool = False) -> None:
        """Brings one model to what the last look found: loads, then switches, then lets go."""
        async with self._changing.setdefault(name, asyncio.Lock()):
            found = self._found.models.get(name)
            if found is None:
                self._do_without(name)
            elif not self.asked_for(name):
                self._serve(found, keep=(), listed=found.wanted)
            elif newest_alone:
                await self._load(found, found.wanted[-1:])
            else:
                await self._bring_up(found)
            self.tell()

    def try_again(self) -> None:
        """Has what was refused tried again, though nothing has changed."""
        self._refusals.forget()

    def tell(self) -> None:
        """Says what is refused now."""
        self.catalog = dataclasses.replace(self.catalog, refused=self._refusals.tell(self._found))

    async def _bring_up(self, found: PublicModel) -> None:
        """Loads what the policy wants; where its newest is refused, what is served goes on.

        Where nothing is served yet, the newest older version that loads stands in for it.
        """
        wanted = found.wanted
        before = self.catalog.models[found.name]
        serving = [version for version in before.versions if self._held(before, version)]
        await self._load(found, wanted)
        ready = [version for version in wanted if self._held(found, version)]
        for older in sorted((v for v in found.versions if v < wanted[-1] and v not in wanted), reverse=True):
            if ready or serving:
                break
            await self._load(found, (older,))
            ready = [older] if self._held(found, older) else []
        missing = [v for v in serving if v not in found.versions and self._missed[found.name, v] < _PATIENCE]
        if wanted[-1] in ready or not serving:
            self._serve(found, keep=(*ready, *missing), listed=wanted)
        else:
            still = [version for version in serving if version in found.versions]
            self._serve(before, keep=(*ready, *missing, *still) or serving[-1:], listed=wanted)

    async def _load(self, found: PublicModel, versions: Iterable[int]) -> None:
        """Loads versions, the newest first, unless they were refused as they are now."""
        for version in sorted(versions, reverse=True):
            stands = (
                self._refusals.stands(manifest, version, self._stamps.get((manifest.graph, version)))
                for manifest in found.graphs.values()
            )
            if not self._ready(found, version) and not any(stands):
                await asyncio.gather(*(self._load_graph(m, version) for m in found.graphs.values()))

    async def _load_graph(self, manifest: Manifest, version: int) -> None:
        stamp = self._stamps.get((manifest.graph, version))
        others = [v for graph, v in self._holdings.of_model(manifest.model) if graph == manifest.graph]
        try:
            with self._metrics.loading(manifest.graph):
                await self._holdings.load(manifest, version, before=max(others, default=None))
        except ServingError as error:
            self._refusals.refuse(manifest, version, stamp, error)
        except Exception:
            log.exception("%s version %d could not be loaded", manifest.graph, version)
            why = f"{manifest.graph} could not be loaded; the log of the gateway says why"
            self._refusals.refuse(manifest, version, stamp, ServingError(Code.INTERNAL, why))
        else:
            self._refusals.accept(manifest, version)

    def _do_without(self, name: str) -> None:
        """A model that is not there, or is refused whole: it goes on until it is gone for sure."""
        model = self.catalog.models.get(name)
        if model is None:
            return
        serving = any(self._held(model, version) for version in model.versions)
        if not serving or all(self._missed[name, version] >= _PATIENCE for version in model.versions):
            log.info("%s is not served any more", name)
            models = {other: entry for other, entry in self.catalog.models.items() if other != name}
            self.catalog = dataclasses.replace(self.catalog, models=models)
            for graph in self._holdings.of_model(name):
                self._holdings.retire(graph)
            self._metrics.forget_model(name)
            for manifest in model.graphs.values():
                self._metrics.forget_graph(manifest.graph)

    def _serve(self, model: PublicModel, *, keep: Iterable[int], listed: Iterable[int]) -> None:
        """Sends new requests to these versions of a model from now on, and lets go of the others."""
        kept = set(keep)
        found = self._found.models[model.name]
        graphs = {
            role: dataclasses.replace(manifest, versions=self._records(manifest, found, kept.union(listed)))
            for role, manifest in model.graphs.items()
        }
        versions = set.intersection(*(set(manifest.versions) for manifest in graphs.values()))
        before = self._default(self.catalog.models[model.name])
        entry = _entry(found, graphs, sorted(versions))
        self._show(entry)
        names = {manifest.graph for manifest in graphs.values()}
        for graph, version in self._holdings.of_model(model.name):
            if version not in kept or graph not in names:
                self._holdings.retire((graph, version))
        now = self._default(entry)
        if before and now and before != now:
            log.info("%s is served by version %d, after %d", model.name, now, before)
            self._metrics.switches.labels(model.name).inc()

    def _records(
        self, manifest: Manifest, found: PublicModel, versions: Iterable[int]
    ) -> dict[int, VersionRecord]:
        """What is known of versions of a graph: as published now, unless something else is served."""
        published = next((m for m in found.graphs.values() if m.graph == manifest.graph), manifest)
        records = {}
        for version in sorted(versions):
            held = self._holdings.manifest(manifest.graph, version)
            if held is not None and not same_version(held, published, version):
                records[version] = held.versions[version]
            elif version in published.versions:
                records[version] = published.versions[version]
        return records

    def _show(self, entry: PublicModel) -> None:
        if self.catalog.models.get(entry.name) != entry:
            self._metrics.serve(entry.name, entry.versions)
            models = {**self.catalog.models, entry.name: entry}
            self.catalog = dataclasses.replace(self.catalog, models=dict(sorted(models.items())))

    def _default(self, model: PublicModel) -> int:
        """The version that requests get which name none; 0 where none is ready."""
        return max(self.ready_versions(model), default=0)

    def _held(self, model: PublicModel, version: int) -> bool:
        """Whether all graphs of a version are loaded, as the model has them."""
        for manifest in model.graphs.values():
            held = self._holdings.manifest(manifest.graph, version)
            if held is None or not same_version(held, manifest, version):
                return False
        return True

    def _ready(self, model: PublicModel, version: int) -> bool:
        """Whether a version can be called now."""
        if not self._held(model, version):
            return False
        return all(self._backend.ready(manifest.graph, version) for manifest in model.graphs.values())

    def _not_ready(self, model: PublicModel, version: int) -> ServingError:
        what = f"version {version} of {model.name}"
        if not self.asked_for(model.name):
            why = f"{model.name} is not loaded: this gateway loads models when it is told to"
            return ServingError(Code.UNAVAILABLE, why)
        if self.refusal(model, version) is not None:
            return ServingError(Code.UNAVAILABLE, f"{what} did not load; the log of the gateway says why")
        return ServingError(Code.UNAVAILABLE, f"{what} is being loaded", retry_after=1.0)

    def _count_missing(self, looks: int) -> None:
        """Counts for each version that is listed the looks in a row in which it was not there.

        A model of which something is broken is not missing.
        """
        missed: Counter[tuple[str, int]] = Counter()
        for model in self.catalog.models.values():
            found = self._found.models.get(model.name)
            names = {model.name, *(manifest.graph for manifest in model.graphs.values())}
            there = model.versions if found is None else found.versions
            broken = found is None and not names.isdisjoint(self._found.refused)
            for version in model.versions:
                key = (model.name, version)
                if not broken and (found is None or version not in there):
                    missed[key] = self._missed[key] + looks
        self._missed = missed

    def _lost(self, reason: str) -> UnreachableError:
        if self.unreachable is None:
            log.error("%s; what is loaded is served as before", reason)
        self.unreachable = reason
        self._metrics.repository_reachable.set(0)
        return UnreachableError(reason)


def _entry(found: PublicModel, graphs: Mapping[str, Manifest], versions: Iterable[int]) -> PublicModel:
    """A model as it is listed."""
    listed = tuple(versions)
    others = tuple(version for version in found.versions if version not in listed)
    return PublicModel(name=found.name, graphs=graphs, versions=listed, others=others)

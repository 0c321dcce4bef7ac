"""Loading of a catalog's models, and whether they are ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic

from serving.backends import Backend
from serving.catalog import Catalog, PublicModel
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.metrics import Metrics

log = logging.getLogger(__name__)

Graph = tuple[str, int]
"""Name of a graph, and a version of it."""


class Loading:
    """Loads every version of every model, the newest first, and keeps account of it."""

    def __init__(self, backend: Backend, catalog: Catalog, metrics: Metrics) -> None:
        self._backend = backend
        self._metrics = metrics
        self._catalog = catalog
        self._problems: dict[Graph, ServingError] = {}
        self._newest = {
            (manifest.graph, model.versions[-1])
            for model in catalog.models.values()
            for manifest in model.graphs.values()
        }
        self.newest_loaded = asyncio.Event()

    async def run(self) -> None:
        """Loads everything; what fails is logged, kept as a reason, and the rest goes on."""
        began = monotonic()
        await self._load(self._newest)
        self.newest_loaded.set()
        ready = sum(bool(self.ready_versions(model)) for model in self._catalog.models.values())
        log.info(
            "%d of %d models ready in %.2f s: %s",
            ready,
            len(self._catalog.models),
            monotonic() - began,
            dict(self._backend.describe()),
        )
        older = {
            (manifest.graph, version)
            for model in self._catalog.models.values()
            for manifest in model.graphs.values()
            for version in model.versions
        }
        await self._load(older - self._newest)

    def ready_versions(self, model: PublicModel) -> list[int]:
        """Versions of which every graph is loaded."""
        return [
            version
            for version in model.versions
            if all(self._backend.ready(manifest.graph, version) for manifest in model.graphs.values())
        ]

    def newest_ready(self) -> list[tuple[Manifest, int]]:
        """The graphs of the newest versions that are loaded."""
        return [
            (manifest, model.versions[-1])
            for model in self._catalog.models.values()
            for manifest in model.graphs.values()
            if self._backend.ready(manifest.graph, model.versions[-1])
        ]

    def problem(self, model: PublicModel, version: int) -> str | None:
        """Why a version of a model did not load, if it did not."""
        for manifest in model.graphs.values():
            error = self._problems.get((manifest.graph, version))
            if error is not None:
                return error.message
        return None

    def not_ready_reason(self) -> str | None:
        """Why the gateway is not ready; None once every newest version has loaded or been refused.

        A model that is broken keeps nobody from the others, but a device that was asked for and is not there
        keeps the gateway from ever being ready.
        """
        for error in self._problems.values():
            if error.code == Code.UNAVAILABLE:
                return error.message
        if not self._catalog.models:
            why = "; ".join(self._catalog.refused.values())
            return f"the repository has no models{': ' + why if why else ''}"
        if not self.newest_loaded.is_set():
            done = sum(self._backend.ready(*graph) or graph in self._problems for graph in self._newest)
            return f"loading: {done} of {len(self._newest)} graphs are done"
        if not any(self.ready_versions(model) for model in self._catalog.models.values()):
            return f"no model could be loaded: {next(iter(self._problems.values())).message}"
        return None

    def require(self, model: PublicModel, version: int) -> None:
        """Raises UNAVAILABLE unless that version can be called."""
        if version in self.ready_versions(model):
            return
        if self.problem(model, version):
            raise ServingError(
                Code.UNAVAILABLE,
                f"version {version} of {model.name} did not load; the log of the gateway says why",
            )
        raise ServingError(
            Code.UNAVAILABLE, f"version {version} of {model.name} is being loaded", retry_after=1.0
        )

    async def _load(self, graphs: Iterable[Graph]) -> None:
        await asyncio.gather(*(self._load_one(graph, version) for graph, version in sorted(graphs)))

    async def _load_one(self, graph: str, version: int) -> None:
        try:
            with self._metrics.loading(graph, version):
                await self._backend.load(graph, version)
        except ServingError as error:
            log.error("%s version %d is not served: %s", graph, version, error.message)
            self._problems[graph, version] = error
        except Exception:
            log.exception("%s version %d is not served", graph, version)
            self._problems[graph, version] = ServingError(
                Code.INTERNAL, f"{graph} could not be loaded; the log of the gateway says why"
            )

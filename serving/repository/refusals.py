"""What is refused now and why: said once in the log, and as long as it holds in the catalog and a metric."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from serving.catalog import Catalog
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.observing.metrics import Metrics
from serving.repository.holdings import Graph, same_version

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    """A version that did not load, and what it looked like then."""

    error: ServingError
    manifest: Manifest
    stamp: Hashable


class Refusals:
    """Versions that did not load, and whatever of the repository cannot be read."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._versions: dict[Graph, _Refusal] = {}
        self._told: dict[str, str] = {}

    def refuse(self, manifest: Manifest, version: int, stamp: Hashable, error: ServingError) -> None:
        """Notes that a version did not load; what has been said already is not said again."""
        key = (manifest.graph, version)
        before = self._versions.get(key)
        self._versions[key] = _Refusal(error=error, manifest=manifest, stamp=stamp)
        if before is None or before.error.message != error.message:
            log.error("%s version %d is not served: %s", *key, error.message)
            self._metrics.loads.labels(manifest.graph, "refused").inc()

    def accept(self, manifest: Manifest, version: int) -> None:
        """Notes that a version is loaded."""
        self._versions.pop((manifest.graph, version), None)
        self._metrics.loads.labels(manifest.graph, "loaded").inc()

    def forget(self) -> None:
        """Has everything tried again."""
        self._versions.clear()

    def error(self, graph: str, version: int) -> ServingError | None:
        """Why a version is refused, if it is."""
        refusal = self._versions.get((graph, version))
        return None if refusal is None else refusal.error

    def stands(self, manifest: Manifest, version: int, stamp: Hashable) -> bool:
        """Whether it would come out the same: neither record nor file has changed since, and the error is
        not one that passes by itself."""
        refusal = self._versions.get((manifest.graph, version))
        return (
            refusal is not None
            and refusal.error.code != Code.UNAVAILABLE
            and refusal.error.retry_after is None
            and refusal.stamp == stamp
            and same_version(refusal.manifest, manifest, version)
        )

    def tell(self, found: Catalog) -> Mapping[str, str]:
        """Every refusal by name (`model`, `graph` or `graph/version`), after saying what is new.

        Versions that are not there any more are forgotten.
        """
        there = {
            (m.graph, v)
            for model in found.models.values()
            for m in model.graphs.values()
            for v in model.versions
        }
        self._versions = {key: each for key, each in self._versions.items() if key in there}
        for name, reason in found.refused.items():
            if self._told.get(name) != reason:
                log.error("%s is not served: %s", name, reason)
        versions = {f"{graph}/{version}": r.error.message for (graph, version), r in self._versions.items()}
        refused = {**found.refused, **versions}
        for name in self._told.keys() - refused.keys():
            log.info("%s is refused no longer", name)
        self._metrics.refused_places.remove(lambda labels: labels["name"] not in refused)
        for name in refused.keys() - self._told.keys():
            self._metrics.refused_places.labels(name).set(1)
        self._told = refused
        return refused

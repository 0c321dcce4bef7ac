"""Opening the service: everything that it is made of, put together, and let go of in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from serving.backends import BACKENDS, Backend
from serving.batching.admission import Admission
from serving.batching.calibration import calibrate
from serving.batching.engine import Engine
from serving.batching.run import Runner
from serving.cache import ResultCache
from serving.catalog import build
from serving.drawing import Drawing
from serving.loading import Loading
from serving.metrics import Metrics
from serving.oip.graphs import Graphs
from serving.oip.inference import OpenInference
from serving.oip.shared_memory import SharedMemory
from serving.picture_pool import PicturePool
from serving.requests import Requests
from serving.resolve import resolve
from serving.service import Service
from serving.settings import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_service(settings: Settings, registry: CollectorRegistry) -> AsyncIterator[Service]:
    """A service on the repository of `settings`, its metrics in `registry`.

    Yields as soon as the repository is read, so that transports can say why they are not ready; models load
    meanwhile. On leaving, nothing new is begun, requests under way are given the grace that the settings
    allow, calls under way finish, and everything is let go in order.
    """
    metrics = Metrics(registry)
    backend: Backend = resolve(BACKENDS, settings.backend, "backend").from_settings(settings)
    pictures = PicturePool(settings.picture_threads)
    try:
        catalog = build(await backend.index())
        for name, reason in catalog.refused.items():
            log.error("%s is not served: %s", name, reason)
        engine = Engine(backend, catalog.manifests, max_batch_bytes=settings.max_batch_bytes, metrics=metrics)
        admission = Admission(
            max_rows=settings.max_pending_rows,
            max_bytes=settings.max_pending_bytes,
            slots=engine.slots,
            backlog=engine.backlog,
            metrics=metrics,
        )
        runner = Runner(engine, admission)
        requests = Requests(
            models=catalog.models, default_deadline=settings.default_deadline, metrics=metrics
        )
        loading = Loading(backend, catalog)
        load = asyncio.create_task(_load(loading, engine))
        try:
            yield Service(
                settings=settings,
                catalog=catalog,
                loading=loading,
                runner=runner,
                requests=requests,
                drawing=Drawing(
                    runner=runner,
                    pictures=pictures,
                    cache=ResultCache(settings.cache_bytes, metrics),
                    metrics=metrics,
                ),
                pictures=pictures,
                open_inference=OpenInference(
                    graphs=Graphs(catalog, backend),
                    runner=runner,
                    requests=requests,
                    statistics=engine.statistics,
                    shared_memory=SharedMemory(allowed=settings.client_shared_memory),
                ),
            )
        finally:
            await requests.close(settings.shutdown_grace)
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            await engine.close()
    finally:
        await backend.close()
        pictures.close()


async def _load(loading: Loading, engine: Engine) -> None:
    """Loads everything, then measures the newest versions: the gateway is ready before that."""
    await loading.run()
    await calibrate(engine, loading.newest_ready())

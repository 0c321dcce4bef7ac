"""Opening the service: everything that it is made of, put together, and let go of in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from serving.backends import BACKENDS, Backend
from serving.batching.admission import Admission
from serving.batching.engine import Engine
from serving.batching.run import Runner
from serving.manifest import Manifest
from serving.observing.event_loop import watch_event_loop
from serving.observing.gpu import GpuCollector
from serving.observing.metrics import Metrics
from serving.oip.graphs import Graphs
from serving.oip.inference import OpenInference
from serving.oip.shared_memory import SharedMemory
from serving.repository.control import Control
from serving.repository.holdings import Graph, Holdings
from serving.repository.live import Repository
from serving.repository.state_metrics import StateCollector
from serving.requests.cache import ResultCache
from serving.requests.context import Requests
from serving.requests.drawing import Drawing
from serving.requests.picture_pool import PicturePool
from serving.resolve import resolve
from serving.service import Service
from serving.settings import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_service(
    settings: Settings, registry: CollectorRegistry, tracer: Tracer | None = None
) -> AsyncIterator[Service]:
    """A service on the repository of `settings`, its metrics in `registry`, its requests traced if at all.

    Yields as soon as the repository is read, so that transports can say why they are not ready; models load
    meanwhile. On leaving, nothing new is begun, requests under way are given the grace that the settings
    allow, calls under way finish, and everything is let go in order.
    """
    metrics = Metrics(registry)
    backend: Backend = resolve(BACKENDS, settings.backend, "backend").from_settings(settings)
    pictures = PicturePool(settings.picture_threads, metrics)
    try:
        manifests: dict[Graph, Manifest] = {}
        engine = Engine(backend, manifests, max_batch_bytes=settings.max_batch_bytes, metrics=metrics)
        repository = Repository(
            backend,
            Holdings(backend, engine, manifests),
            only=settings.load_models if settings.model_control == "explicit" else None,
            metrics=metrics,
        )
        control = Control(
            repository, backend, engine, mode=settings.model_control, poll_seconds=settings.poll_seconds
        )
        await control.open()
        admission = Admission(
            max_rows=settings.max_pending_rows,
            max_bytes=settings.max_pending_bytes,
            slots=engine.slots,
            backlog=engine.backlog,
            metrics=metrics,
        )
        runner = Runner(engine, admission)
        requests = Requests(models=repository, default_deadline=settings.default_deadline, metrics=metrics)
        state = StateCollector(repository=repository, control=control, backend=backend, engine=engine)
        gpus = GpuCollector()
        registry.register(state)
        registry.register(gpus)
        gpus.start()
        lag = asyncio.create_task(watch_event_loop(metrics))
        life = asyncio.create_task(control.run())
        life.add_done_callback(_say_if_it_failed)
        try:
            yield Service(
                settings=settings,
                repository=repository,
                control=control,
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
                    graphs=Graphs(repository, backend),
                    control=control,
                    runner=runner,
                    requests=requests,
                    statistics=engine.statistics,
                    shared_memory=SharedMemory(allowed=settings.client_shared_memory),
                ),
                tracer=tracer,
            )
        finally:
            await requests.close(settings.shutdown_grace)
            registry.unregister(state)
            gpus.stop()
            life.cancel()
            lag.cancel()
            await asyncio.gather(life, lag, return_exceptions=True)
            await engine.close()
    finally:
        await backend.close()
        pictures.close()


def _say_if_it_failed(life: asyncio.Task[None]) -> None:
    if not life.cancelled() and life.exception() is not None:
        log.critical("the repository is not followed any more", exc_info=life.exception())

"""What the gateway does, in the terms of `atelier.v1` and of no transport: checks, runs, encodes.

Transports hand over protobuf messages and a `RequestContext`, and translate what comes back. Everything a
client may be told of raises `ServingError`; any other exception is an internal error.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from serving import checks
from serving.backends import BACKENDS, Backend
from serving.batching.admission import Admission
from serving.batching.engine import Engine
from serving.batching.lane import Ticket
from serving.batching.run import run
from serving.calls import Array, Progress
from serving.catalog import Catalog, PublicModel, build
from serving.describe import describe, run_info
from serving.errors import Code, ServingError
from serving.exploration import Bounds, latent_message, plan_exploration
from serving.generation import Generation, plan
from serving.loading import Loading
from serving.manifest import Manifest
from serving.metrics import Metrics
from serving.pb import image_generation_pb2 as pb
from serving.picture_pool import PicturePool
from serving.programs.generate import draw, finish
from serving.programs.latents import encode
from serving.programs.translate import translate
from serving.requests import RequestContext, Requests
from serving.resolve import resolve
from serving.settings import Settings

__all__ = ["RequestContext", "Service", "open_service"]

log = logging.getLogger(__name__)

_UPDATES_KEPT = 8


class Service:
    """The gateway's one service, behind every transport. Built by `open_service`."""

    def __init__(
        self,
        *,
        settings: Settings,
        catalog: Catalog,
        loading: Loading,
        engine: Engine,
        requests: Requests,
        admission: Admission,
        pictures: PicturePool,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._loading = loading
        self._engine = engine
        self._requests = requests
        self._admission = admission
        self._pictures = pictures

    def ready(self) -> bool:
        """Whether every model that can be served is loaded, on the device that was asked for."""
        return self.not_ready_reason() is None

    def not_ready_reason(self) -> str | None:
        """Why the gateway is not ready, in a sentence; None when it is."""
        return "the gateway is stopping" if self._requests.closing else self._loading.not_ready_reason()

    async def wait_loaded(self) -> None:
        """Until the newest version of every model is loaded or refused."""
        await self._loading.newest_loaded.wait()

    def card(self, model: str) -> str | None:
        """The model card in Markdown, where there is one. NOT_FOUND for an unknown model."""
        path = self._folder(model) / "card.md"
        return path.read_text("utf-8") if path.is_file() else None

    def samples(self, model: str) -> bytes | None:
        """The sample grid as PNG, where there is one. NOT_FOUND for an unknown model."""
        path = self._folder(model) / "samples.png"
        return path.read_bytes() if path.is_file() else None

    async def list_models(self) -> pb.ListModelsResponse:
        """Every public model of the repository, by name."""
        return pb.ListModelsResponse(models=[self._describe(m) for m in self._catalog.models.values()])

    async def get_model(self, request: pb.GetModelRequest) -> pb.Model:
        """One public model."""
        return self._describe(self._catalog.model(request.model))

    async def generate_images(
        self, request: pb.GenerateImagesRequest, context: RequestContext
    ) -> pb.GenerateImagesResponse:
        """Images drawn from a model."""
        return await self._generate("GenerateImages", request, context)

    async def stream_generate_images(
        self, request: pb.GenerateImagesRequest, context: RequestContext
    ) -> AsyncIterator[pb.GenerateEvent]:
        """The same, with progress: the result is the last event. Closing the iterator cancels the run.

        Progress that a slow reader has not fetched gives way to newer: the run waits for nobody.
        """
        updates: deque[tuple[Generation, Progress]] = deque(maxlen=_UPDATES_KEPT)
        changed = asyncio.Event()

        def update(generation: Generation, progress: Progress) -> None:
            updates.append((generation, progress))
            changed.set()

        task = asyncio.create_task(self._generate("StreamGenerateImages", request, context, update))
        task.add_done_callback(lambda _: changed.set())
        try:
            while True:
                while updates:
                    yield await self._event(request, *updates.popleft())
                if task.done():
                    break
                changed.clear()
                await changed.wait()
            yield pb.GenerateEvent(result=await task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def translate_images(
        self, request: pb.TranslateImagesRequest, context: RequestContext
    ) -> pb.TranslateImagesResponse:
        """Images carried from one domain to the other."""
        async with self._requests.track("TranslateImages", request.model, context) as deadline:
            model, version = self._resolve(request.model, request.version, "translate")
            graph = checks.direction(request.direction, model)
            image_format = checks.image_format(request.format)
            checks.number_of("images", request.images, self._settings.max_images)
            ticket = Ticket(version=version, deadline=deadline)
            with self._admission.admit(len(request.images)):
                images = await self._images(request.images, model, graph)
                translated = await run(translate(graph, images), self._engine, ticket)
                encoded = await self._pictures.encode(translated, graph, image_format)
            return pb.TranslateImagesResponse(images=encoded, run=run_info(model, ticket))

    async def edit_images(
        self, request: pb.EditImagesRequest, context: RequestContext
    ) -> pb.EditImagesResponse:
        """UNIMPLEMENTED."""
        async with self._requests.track("EditImages", request.model, context):
            raise _unimplemented("editing")

    async def encode_images(
        self, request: pb.EncodeImagesRequest, context: RequestContext
    ) -> pb.EncodeImagesResponse:
        """Latents of images: the means of what the encoder says."""
        async with self._requests.track("EncodeImages", request.model, context) as deadline:
            model, version = self._resolve(request.model, request.version, "encode")
            graph = model.graphs["encoder"]
            class_id = checks.required_class_id(request, model, graph)
            checks.number_of("images", request.images, self._settings.max_images)
            ticket = Ticket(version=version, deadline=deadline)
            with self._admission.admit(len(request.images)):
                images = np.stack(await self._images(request.images, model, graph))
                classes = None if class_id is None else np.full(len(images), class_id, np.int64)
                latents = await run(encode(graph, images, classes), self._engine, ticket)
            return pb.EncodeImagesResponse(latents=map(latent_message, latents))

    async def decode_latents(
        self, request: pb.DecodeLatentsRequest, context: RequestContext
    ) -> pb.DecodeLatentsResponse:
        """Images of latents."""
        async with self._requests.track("DecodeLatents", request.model, context) as deadline:
            model, version = self._resolve(request.model, request.version, "decode")
            graph, spec = model.drawn, model.latent
            assert graph is not None
            assert spec is not None, "a model that decodes has a latent"
            image_format = checks.image_format(request.format)
            class_id = checks.required_class_id(request, model, graph)
            checks.number_of("latents", request.latents, self._settings.max_count)
            latents = np.stack(
                [checks.latent(f"latents[{i}]", x, spec, model) for i, x in enumerate(request.latents)]
            )
            classes = None if class_id is None else np.full(len(latents), class_id, np.int64)
            ticket = Ticket(version=version, deadline=deadline)
            with self._admission.admit(len(latents)):
                drawn = await run(draw(graph, latents, classes), self._engine, ticket)
            return pb.DecodeLatentsResponse(
                images=await self._pictures.encode(drawn, graph, image_format), run=run_info(model, ticket)
            )

    async def explore_latents(
        self, request: pb.ExploreLatentsRequest, context: RequestContext
    ) -> pb.ExploreLatentsResponse:
        """Images along a path through latent space."""
        async with self._requests.track("ExploreLatents", request.model, context) as deadline:
            model, version = self._resolve(request.model, request.version, "decode")
            bounds = Bounds(
                max_count=self._settings.max_count,
                max_images=self._settings.max_images,
                max_image_pixels=self._settings.max_image_pixels,
            )
            exploration = await self._pictures.run(plan_exploration, request, model, bounds)
            ticket = Ticket(version=version, deadline=deadline)
            with self._admission.admit(exploration.rows):
                latents, drawn = await run(exploration.program(), self._engine, ticket)
            return pb.ExploreLatentsResponse(
                images=await self._pictures.encode(drawn, exploration.decoder, exploration.image_format),
                latents=map(latent_message, latents),
                run=run_info(model, ticket),
            )

    async def score_images(
        self, request: pb.ScoreImagesRequest, context: RequestContext
    ) -> pb.ScoreImagesResponse:
        """UNIMPLEMENTED."""
        async with self._requests.track("ScoreImages", request.model, context):
            raise _unimplemented("scoring")

    async def picture(self, images: Sequence[pb.Image], image_format: int) -> bytes:
        """One picture of these images: a single one as it is, several as a contact sheet."""
        if len(images) == 1 and images[0].format == image_format:
            return images[0].data
        return await self._pictures.sheet(images, image_format)

    async def _generate(
        self,
        method: str,
        request: pb.GenerateImagesRequest,
        context: RequestContext,
        update: Callable[[Generation, Progress], None] | None = None,
    ) -> pb.GenerateImagesResponse:
        async with self._requests.track(method, request.model, context) as deadline:
            model, version = self._resolve(request.model, request.version, "generate")
            generation = plan(request, model, version, self._settings.max_count)
            ticket = Ticket(version=version, deadline=deadline)
            with self._admission.admit(generation.rows):
                images = await run(
                    generation.program(),
                    self._engine,
                    ticket,
                    partial(update, generation) if update else None,
                )
                encoded = await self._pictures.encode(images, model.first, generation.image_format)
            return pb.GenerateImagesResponse(images=encoded, run=run_info(model, ticket, generation))

    async def _event(
        self, request: pb.GenerateImagesRequest, generation: Generation, progress: Progress
    ) -> pb.GenerateEvent:
        """Progress as clients get it, with previews at the steps that were asked for."""
        previews: list[pb.Image] = []
        every = request.preview_every
        if every and progress.step % every == 0 and progress.step < progress.steps:
            assert progress.denoised is not None, "samplers show what they have"
            ticket = Ticket(version=generation.version, deadline=math.inf)
            program = finish(generation.decoder, progress.denoised, generation.class_id)
            shown = await run(program, self._engine, ticket)
            previews = await self._pictures.encode(shown, generation.model.first, generation.image_format)
        return pb.GenerateEvent(
            progress=pb.Progress(step=progress.step, steps=progress.steps, previews=previews)
        )

    def _resolve(self, name: str, asked: int, task: str) -> tuple[PublicModel, int]:
        """The model and version of a request, which can do the task and are loaded."""
        model = self._catalog.model(name)
        model.require(task)
        version = model.version(asked, self._loading.ready_versions(model))
        self._loading.require(model, version)
        return model, version

    def _describe(self, model: PublicModel) -> pb.Model:
        ready = self._loading.ready_versions(model)
        return describe(model, ready, self._loading.problem(model, model.versions[-1]))

    def _folder(self, model: str) -> Path:
        return self._settings.repository / self._catalog.model(model).first.graph

    async def _images(self, images: Sequence[pb.Image], model: PublicModel, graph: Manifest) -> list[Array]:
        """Images of a request as the graph takes them."""
        return await self._pictures.decode(images, model, graph, self._settings.max_image_pixels)


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
        requests = Requests(
            models=catalog.models, default_deadline=settings.default_deadline, metrics=metrics
        )
        loading = Loading(backend, catalog)
        load = asyncio.create_task(loading.run())
        try:
            yield Service(
                settings=settings,
                catalog=catalog,
                loading=loading,
                engine=engine,
                requests=requests,
                admission=Admission(max_rows=settings.max_pending_rows, metrics=metrics),
                pictures=pictures,
            )
        finally:
            await requests.close(settings.shutdown_grace)
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            await engine.close()
    finally:
        await backend.close()
        pictures.close()


def _unimplemented(what: str) -> ServingError:
    return ServingError(
        Code.UNIMPLEMENTED,
        f"{what} is not there yet; generating, translating, encoding, decoding and exploring latents are",
    )

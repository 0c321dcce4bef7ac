"""What the gateway does, in the terms of `atelier.v1` and of no transport: checks, runs, encodes.

Transports hand over protobuf messages and a `RequestContext`, and translate what comes back. Everything a
client may be told of raises `ServingError`; any other exception is an internal error.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from opentelemetry.trace import Tracer

from serving.batching.run import Runner
from serving.calls import Array, Progress
from serving.catalog import PublicModel
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.oip.inference import OpenInference
from serving.pb import image_generation_pb2 as pb
from serving.programs.generate import draw
from serving.programs.latents import encode
from serving.programs.translate import translate
from serving.repository.control import Control
from serving.repository.live import Repository
from serving.requests import checks
from serving.requests.context import RequestContext, Requests, Tracked, new_ticket
from serving.requests.describe import describe, run_info
from serving.requests.drawing import Drawing
from serving.requests.exploration import DEFAULT_COUNT, Bounds, latent_message, plan_exploration
from serving.requests.generation import Generation, plan
from serving.requests.picture_pool import PicturePool
from serving.requests.streaming import stream
from serving.settings import Settings

__all__ = ["RequestContext", "Service"]

# What `atelier evaluate` leaves beside a model's first graph.
_CARD = "card.md"
_SAMPLES = "samples.png"


class _Asked(Protocol):
    """A request for a model."""

    model: str
    version: int


class Service:
    """The gateway's one service, behind every transport. Built by `opening.open_service`."""

    def __init__(
        self,
        *,
        settings: Settings,
        repository: Repository,
        control: Control,
        runner: Runner,
        requests: Requests,
        drawing: Drawing,
        pictures: PicturePool,
        open_inference: OpenInference,
        tracer: Tracer | None = None,
    ) -> None:
        self.open_inference = open_inference
        self.tracer = tracer
        self._settings = settings
        self._repository = repository
        self._control = control
        self._runner = runner
        self._requests = requests
        self._drawing = drawing
        self._pictures = pictures

    def ready(self) -> bool:
        """Whether every model that can be served is loaded, on the device that was asked for."""
        return self.not_ready_reason() is None

    def not_ready_reason(self) -> str | None:
        """Why the gateway is not ready, in a sentence; None when it is."""
        return "the gateway is stopping" if self._requests.closing else self._control.not_ready_reason()

    async def cut_off(self) -> None:
        """Ends what is still under way, and tells whoever asked for it."""
        await self._requests.close(0)

    async def wait_loaded(self) -> None:
        """Until the newest version of every model is loaded or refused."""
        await self._control.newest_loaded.wait()

    async def load_model(self, name: str) -> None:
        """Loads a model, or its new version, as it lies in the repository now; by the name of a graph too.

        Raises `ServingError`: NOT_FOUND, FAILED_PRECONDITION where `model_control` is not explicit, and what
        its newest version is refused for. For admins: transports see to that.
        """
        await self._control.load(name)

    async def unload_model(self, name: str) -> None:
        """Takes no more requests for a model; its memory comes back when those under way have ended.

        Raises as `load_model`. For admins.
        """
        await self._control.unload(name)

    async def reload(self) -> None:
        """Brings everything to what lies in the repository now, and tries again what was refused.

        UNAVAILABLE where the repository cannot be read. For admins.
        """
        await self._control.reload()

    def turned_away(self, reason: str) -> None:
        """Counts a caller whom a transport turned away, for a reason of `metrics.TURNED_AWAY`."""
        self._requests.turned_away(reason)

    def card(self, model: str) -> str | None:
        """The model card in Markdown, where there is one. NOT_FOUND for an unknown model."""
        path = self._beside(self._repository.catalog.model(model), _CARD)
        return path.read_text("utf-8") if path else None

    def samples(self, model: str) -> bytes | None:
        """The sample grid as PNG, where there is one. NOT_FOUND for an unknown model."""
        path = self._beside(self._repository.catalog.model(model), _SAMPLES)
        return path.read_bytes() if path else None

    async def list_models(self) -> pb.ListModelsResponse:
        """Every public model of the repository, by name."""
        catalog = self._repository.catalog
        return pb.ListModelsResponse(
            models=[self._describe(model) for model in catalog.models.values()],
            refused=[pb.RefusedEntry(name=name, reason=why) for name, why in sorted(catalog.refused.items())],
        )

    async def get_model(self, request: pb.GetModelRequest) -> pb.Model:
        """One public model."""
        return self._describe(self._repository.catalog.model(request.model))

    async def generate_images(
        self, request: pb.GenerateImagesRequest, context: RequestContext
    ) -> pb.GenerateImagesResponse:
        """Images drawn from a model."""
        return await self._generate("GenerateImages", request, context)

    def stream_generate_images(
        self, request: pb.GenerateImagesRequest, context: RequestContext
    ) -> AsyncGenerator[pb.GenerateEvent, None]:
        """The same, with progress: the result is the last event. Closing the iterator cancels the run.

        Progress that a slow reader has not fetched gives way to newer: the run waits for nobody.
        """

        async def start(
            kept: ExitStack, update: Callable[[tuple[Generation, Progress]], None]
        ) -> pb.GenerateImagesResponse:
            return await self._generate("StreamGenerateImages", request, context, update, kept)

        async def show(update: tuple[Generation, Progress]) -> pb.GenerateEvent:
            return await self._event(request, context, *update)

        async def events() -> AsyncGenerator[pb.GenerateEvent, None]:
            # Previews may be drawn when the run has ended: the version stays until the reader has them.
            with ExitStack() as kept:
                async with aclosing(stream(partial(start, kept), show)) as shown:
                    async for event in shown:
                        yield event

        return events()

    async def translate_images(
        self, request: pb.TranslateImagesRequest, context: RequestContext
    ) -> pb.TranslateImagesResponse:
        """Images carried from one domain to the other."""
        with self._track("TranslateImages", request, context) as tracked:
            model, version = self._find(tracked, request, context, "translate")
            graph = checks.direction(request.direction, model)
            image_format = checks.image_format(request.format)
            checks.number_of("images", request.images, self._settings.max_images)
            ticket = new_ticket(context, version, tracked.deadline, graph, len(request.images))
            with self._runner.admitted(ticket):
                images = await self._images(request.images, model, graph)
                with self._runner.hold(2 * sum(image.nbytes for image in images)):
                    translated = await self._runner.run(translate(graph, images), ticket)
                encoded = await self._pictures.encode(translated, graph, image_format)
            return pb.TranslateImagesResponse(images=encoded, run=run_info(model, ticket))

    async def edit_images(
        self, request: pb.EditImagesRequest, context: RequestContext
    ) -> pb.EditImagesResponse:
        """UNIMPLEMENTED."""
        with self._requests.track("EditImages", request.model, context):
            raise _unimplemented("editing")

    async def encode_images(
        self, request: pb.EncodeImagesRequest, context: RequestContext
    ) -> pb.EncodeImagesResponse:
        """Latents of images: the means of what the encoder says."""
        with self._track("EncodeImages", request, context) as tracked:
            model, version = self._find(tracked, request, context, "encode")
            graph = model.graphs["encoder"]
            class_id = checks.required_class_id(request, model, graph)
            checks.number_of("images", request.images, self._settings.max_images)
            ticket = new_ticket(context, version, tracked.deadline, graph, len(request.images))
            with self._runner.admitted(ticket):
                images = np.stack(await self._images(request.images, model, graph))
                classes = None if class_id is None else np.full(len(images), class_id, np.int64)
                latents = await self._runner.run(encode(graph, images, classes), ticket)
            return pb.EncodeImagesResponse(latents=map(latent_message, latents))

    async def decode_latents(
        self, request: pb.DecodeLatentsRequest, context: RequestContext
    ) -> pb.DecodeLatentsResponse:
        """Images of latents."""
        with self._track("DecodeLatents", request, context) as tracked:
            model, version = self._find(tracked, request, context, "decode")
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
            ticket = new_ticket(context, version, tracked.deadline, graph, len(latents))
            with self._runner.admitted(ticket):
                drawn = await self._runner.run(draw(graph, latents, classes), ticket)
            return pb.DecodeLatentsResponse(
                images=await self._pictures.encode(drawn, graph, image_format), run=run_info(model, ticket)
            )

    async def explore_latents(
        self, request: pb.ExploreLatentsRequest, context: RequestContext
    ) -> pb.ExploreLatentsResponse:
        """Images along a path through latent space."""
        with self._track("ExploreLatents", request, context) as tracked:
            model, version = self._find(tracked, request, context, "decode")
            bounds = Bounds(
                max_count=self._settings.max_count,
                max_images=self._settings.max_images,
                max_image_pixels=self._settings.max_image_pixels,
            )
            exploration = await self._pictures.run(plan_exploration, request, model, bounds)
            ticket = new_ticket(context, version, tracked.deadline, exploration.decoder, exploration.rows)
            with self._runner.admitted(ticket):
                latents, drawn = await self._runner.run(exploration.program(), ticket)
            return pb.ExploreLatentsResponse(
                images=await self._pictures.encode(drawn, exploration.decoder, exploration.image_format),
                latents=map(latent_message, latents),
                run=run_info(model, ticket),
            )

    async def score_images(
        self, request: pb.ScoreImagesRequest, context: RequestContext
    ) -> pb.ScoreImagesResponse:
        """UNIMPLEMENTED."""
        with self._requests.track("ScoreImages", request.model, context):
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
        update: Callable[[tuple[Generation, Progress]], None] | None = None,
        kept: ExitStack | None = None,
    ) -> pb.GenerateImagesResponse:
        with self._track(method, request, context) as tracked:
            model, version = self._find(tracked, request, context, "generate")
            if kept is not None:
                kept.enter_context(self._repository.keep(model, version))
            generation = plan(request, model, version, self._settings.max_count)

            tell = None if update is None else lambda progress: update((generation, progress))
            ticket = new_ticket(context, version, tracked.deadline)
            return await self._drawing.draw(generation, ticket, seeded=request.HasField("seed"), tell=tell)

    async def _event(
        self,
        request: pb.GenerateImagesRequest,
        context: RequestContext,
        generation: Generation,
        progress: Progress,
    ) -> pb.GenerateEvent:
        """Progress as clients get it, with previews at the steps that were asked for."""
        previews: list[pb.Image] = []
        every = request.preview_every
        if every and progress.step % every == 0 and progress.step < progress.steps:
            # Looking on never takes much from those who wait for a result.
            ticket = new_ticket(replace(context, priority="batch"), generation.version, math.inf)
            previews = await self._drawing.preview(generation, progress, ticket)
        return pb.GenerateEvent(
            progress=pb.Progress(step=progress.step, steps=progress.steps, previews=previews)
        )

    def _track(self, method: str, request: _Asked, context: RequestContext) -> Tracked:
        """A request for a model, under way while the block lasts."""
        images = _images_asked(request)
        return self._requests.track(method, request.model, context, images=images)

    def _find(
        self, tracked: Tracked, request: _Asked, context: RequestContext, task: str
    ) -> tuple[PublicModel, int]:
        """The model that has the task, and its version, which stays loaded until the request has ended,
        whatever happens in the repository."""
        key = _retry_key(request, context)
        model, version = self._repository.find(request.model, request.version, task, key)
        tracked.resolved(task, version, self._repository.keep(model, version))
        return model, version

    def _describe(self, model: PublicModel) -> pb.Model:
        repository = self._repository
        errors = {version: repository.refusal(model, version) for version in model.versions}
        refused = {version: error.message for version, error in errors.items() if error is not None}
        ready = repository.ready_versions(model)
        message = describe(model, ready, refused, loaded=repository.asked_for(model.name))
        message.has_card = self._beside(model, _CARD) is not None
        message.has_samples = self._beside(model, _SAMPLES) is not None
        return message

    def _beside(self, model: PublicModel, name: str) -> Path | None:
        """A file beside the model's first graph, if it is there."""
        folder = self._repository.folder(model.first.graph)
        return folder / name if folder and (folder / name).is_file() else None

    async def _images(self, images: Sequence[pb.Image], model: PublicModel, graph: Manifest) -> list[Array]:
        """Images of a request as the graph takes them."""
        return await self._pictures.decode(images, model, graph, self._settings.max_image_pixels)


def _retry_key(request: _Asked, context: RequestContext) -> str:
    """The same for a request and its retry: its seed, else its id."""
    if isinstance(request, pb.GenerateImagesRequest) and request.HasField("seed"):
        return f"seed {request.seed}"
    return f"request {context.request_id}"


def _images_asked(request: _Asked) -> int:
    """Images that a request makes the gateway compute, as far as limits of a key count them."""
    if isinstance(request, pb.GenerateImagesRequest):
        return max(1, request.count)
    if isinstance(request, pb.ExploreLatentsRequest):
        return max(1, request.count or DEFAULT_COUNT)
    return len(getattr(request, "latents", ())) or len(getattr(request, "images", ()))


def _unimplemented(what: str) -> ServingError:
    return ServingError(
        Code.UNIMPLEMENTED,
        f"{what} is not there yet; generating, translating, encoding, decoding and exploring latents are",
    )

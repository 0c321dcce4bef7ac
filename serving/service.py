"""What the gateway does, in the terms of `atelier.v1` and of no transport: checks, runs, encodes.

Transports hand over protobuf messages and a `RequestContext`, and translate what comes back. Everything a
client may be told of raises `ServingError`; any other exception is an internal error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from serving.pb import image_generation_pb2 as pb
from serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """What a transport knows of one request."""

    deadline: float | None = None
    """When the client stops waiting, in seconds of `time.monotonic`; None for the gateway's default."""
    request_id: str = ""
    """Name of the request in logs."""
    client: str = ""
    """Who asks, for fairness between clients: the peer's address without its port."""
    transport: str = ""
    """`grpc` or `http`, for logs."""


class Service:
    """The gateway's one service, behind every transport. Built by `open_service`."""

    def ready(self) -> bool:
        """Whether every model that can be served is loaded, on the device that was asked for."""
        return self.not_ready_reason() is None

    def not_ready_reason(self) -> str | None:
        """Why the gateway is not ready, in a sentence; None when it is."""
        raise NotImplementedError

    async def wait_loaded(self) -> None:
        """Until loading has ended, well or ill."""
        raise NotImplementedError

    def card(self, model: str) -> str | None:
        """The model card in Markdown, where there is one. NOT_FOUND for an unknown model."""
        raise NotImplementedError

    def samples(self, model: str) -> bytes | None:
        """The sample grid as PNG, where there is one. NOT_FOUND for an unknown model."""
        raise NotImplementedError

    async def list_models(self) -> pb.ListModelsResponse:
        """Every public model of the repository, by name."""
        raise NotImplementedError

    async def get_model(self, request: pb.GetModelRequest) -> pb.Model:
        """One public model."""
        raise NotImplementedError

    async def generate_images(
        self, request: pb.GenerateImagesRequest, context: RequestContext
    ) -> pb.GenerateImagesResponse:
        """Images drawn from a model."""
        raise NotImplementedError

    def stream_generate_images(
        self, request: pb.GenerateImagesRequest, context: RequestContext
    ) -> AsyncIterator[pb.GenerateEvent]:
        """The same, with progress: the result is the last event. Closing the iterator cancels the run."""
        raise NotImplementedError

    async def translate_images(
        self, request: pb.TranslateImagesRequest, context: RequestContext
    ) -> pb.TranslateImagesResponse:
        """Images carried from one domain to the other."""
        raise NotImplementedError

    async def edit_images(
        self, request: pb.EditImagesRequest, context: RequestContext
    ) -> pb.EditImagesResponse:
        """UNIMPLEMENTED."""
        raise NotImplementedError

    async def encode_images(
        self, request: pb.EncodeImagesRequest, context: RequestContext
    ) -> pb.EncodeImagesResponse:
        """Latents of images."""
        raise NotImplementedError

    async def decode_latents(
        self, request: pb.DecodeLatentsRequest, context: RequestContext
    ) -> pb.DecodeLatentsResponse:
        """Images of latents."""
        raise NotImplementedError

    async def explore_latents(
        self, request: pb.ExploreLatentsRequest, context: RequestContext
    ) -> pb.ExploreLatentsResponse:
        """Images along a path through latent space."""
        raise NotImplementedError

    async def score_images(
        self, request: pb.ScoreImagesRequest, context: RequestContext
    ) -> pb.ScoreImagesResponse:
        """UNIMPLEMENTED."""
        raise NotImplementedError

    async def picture(self, images: Sequence[pb.Image], image_format: pb.ImageFormat) -> bytes:
        """One picture of these images: a single one as it is, several as a contact sheet."""
        raise NotImplementedError


@asynccontextmanager
async def open_service(settings: Settings, registry: CollectorRegistry) -> AsyncIterator[Service]:
    """A service on the repository of `settings`, its metrics in `registry`.

    Yields as soon as the repository is read, so that transports can say why they are not ready; models load
    meanwhile. On leaving, nothing new is begun, calls under way finish, and everything is let go in order.
    """
    raise NotImplementedError
    yield Service()

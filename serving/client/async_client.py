"""The client for programs on asyncio; method for method that of `sync_client`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from serving.client.answers import Images, Progress, read_event, read_images, read_latents
from serving.client.connection import DEFAULT_ADDRESS, Connection
from serving.client.errors import from_rpc_error
from serving.client.requests import (
    Picture,
    Walk,
    condition,
    explore_request,
    generate_request,
    to_images,
    to_latent,
)
from serving.pb import image_generation_pb2 as pb
from serving.pb.image_generation_pb2_grpc import ImageGenerationStub

Answer = TypeVar("Answer")


class AsyncClient:
    """A gateway, asked over gRPC. Closes with its `async with` block.

    Every method raises `AtelierError` for what the gateway refuses, and where none answers.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float | None = None,
        api_key: str | None = None,
        tls_ca: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
    ) -> None:
        """A client of the gateway at `address` that waits `timeout` seconds for an answer.

        The address is `host:port`, with `https://` before it for TLS. `tls_ca` is the PEM file of the
        authorities that certify the gateway where they are not the system's; `tls_cert` and `tls_key` are
        the client's own, for a gateway that asks for them. `api_key` goes with every call.
        """
        connection = Connection(
            address=address, api_key=api_key, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key
        )
        self._address = address
        self._with: dict[str, Any] = {"timeout": timeout, "metadata": connection.metadata}
        self._channel = connection.aio_channel()
        self._stub: Any = ImageGenerationStub(self._channel)  # type: ignore[no-untyped-call] # generated

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection; calls under way are cancelled."""
        await self._channel.close(None)

    async def models(self) -> Sequence[pb.Model]:
        """Every model of the gateway, by name."""
        response: pb.ListModelsResponse = await self._ask(self._stub.ListModels, pb.ListModelsRequest())
        return response.models

    async def model(self, name: str) -> pb.Model:
        """One model: its size, classes, samplers and so on."""
        response: pb.Model = await self._ask(self._stub.GetModel, pb.GetModelRequest(model=name))
        return response

    async def generate(
        self,
        model: str,
        *,
        count: int = 1,
        class_label: str | None = None,
        class_id: int | None = None,
        seed: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str = "",
        truncation: float | None = None,
        eta: float | None = None,
        version: int = 0,
    ) -> Images:
        """Images drawn from a model; what is left out is as the model has it, the seed is chosen and told."""
        request = generate_request(
            model,
            version=version,
            count=count,
            class_label=class_label,
            class_id=class_id,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            truncation=truncation,
            eta=eta,
        )
        response: pb.GenerateImagesResponse = await self._ask(self._stub.GenerateImages, request)
        return read_images(response.images, response.run)

    async def stream(
        self,
        model: str,
        *,
        count: int = 1,
        class_label: str | None = None,
        class_id: int | None = None,
        seed: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str = "",
        truncation: float | None = None,
        eta: float | None = None,
        version: int = 0,
        preview_every: int = 0,
    ) -> AsyncIterator[Progress | Images]:
        """The same with progress, a preview every so many steps; the images come last.

        Leaving the iterator before its end cancels the run.
        """
        request = generate_request(
            model,
            version=version,
            count=count,
            class_label=class_label,
            class_id=class_id,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            truncation=truncation,
            eta=eta,
            preview_every=preview_every,
        )
        call = self._stub.StreamGenerateImages(request, **self._with)
        try:
            async for event in call:
                yield read_event(event)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address) from None
        finally:
            call.cancel()

    async def translate(
        self, model: str, pictures: Picture | Iterable[Picture], *, direction: str = "", version: int = 0
    ) -> Images:
        """Pictures carried to the other domain; `direction` may be left out where the model has one."""
        request = pb.TranslateImagesRequest(
            model=model,
            version=version,
            direction=direction,
            images=to_images(pictures),
            format=pb.IMAGE_FORMAT_RAW_U8,
        )
        response: pb.TranslateImagesResponse = await self._ask(self._stub.TranslateImages, request)
        return read_images(response.images, response.run)

    async def encode(
        self,
        model: str,
        pictures: Picture | Iterable[Picture],
        *,
        class_label: str | None = None,
        class_id: int | None = None,
        version: int = 0,
    ) -> NDArray[np.float32]:
        """Latents of pictures, [count, ...]; a conditional encoder is told the class that they show."""
        request = pb.EncodeImagesRequest(
            model=model, version=version, images=to_images(pictures), **condition(class_label, class_id)
        )
        response: pb.EncodeImagesResponse = await self._ask(self._stub.EncodeImages, request)
        return read_latents(response.latents)

    async def decode(
        self,
        model: str,
        latents: NDArray[np.float32],
        *,
        class_label: str | None = None,
        class_id: int | None = None,
        version: int = 0,
    ) -> Images:
        """Images of latents, [count, ...]."""
        request = pb.DecodeLatentsRequest(
            model=model,
            version=version,
            latents=map(to_latent, latents),
            format=pb.IMAGE_FORMAT_RAW_U8,
            **condition(class_label, class_id),
        )
        response: pb.DecodeLatentsResponse = await self._ask(self._stub.DecodeLatents, request)
        return read_images(response.images, response.run)

    async def explore(
        self,
        model: str,
        walk: Walk,
        *,
        count: int = 8,
        class_label: str | None = None,
        class_id: int | None = None,
        version: int = 0,
    ) -> Images:
        """The images along a walk through latent space, and the latents that they were decoded from."""
        request = explore_request(
            model, walk, count=count, class_label=class_label, class_id=class_id, version=version
        )
        response: pb.ExploreLatentsResponse = await self._ask(self._stub.ExploreLatents, request)
        return read_images(response.images, response.run, response.latents)

    async def _ask(self, call: Callable[..., Awaitable[Answer]], request: object) -> Answer:
        try:
            return await call(request, **self._with)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address) from None

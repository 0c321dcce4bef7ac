"""Tritons of other releases than the one that can be had here, as far as cancelling goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)


class Release(GRPCInferenceServiceServicer):  # type: ignore[misc] # comes without types
    """A server of one model, which answers when it may and counts what is cancelled in it."""

    def __init__(self, version: str, *, name: str = "triton") -> None:
        self.name = name
        self.version = version
        self.address = ""
        self.may_answer = asyncio.Event()
        self.hangs = False
        self.asked = 0
        self.answered = 0
        self.cancelled = 0

    async def ServerMetadata(self, _: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802 - of the protocol
        if not self.version:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted")
        return pb.ServerMetadataResponse(name=self.name, version=self.version)

    async def RepositoryIndex(self, _: Any, __: grpc.aio.ServicerContext) -> Any:  # noqa: N802 - of the protocol
        if self.hangs:
            await asyncio.Event().wait()
        return pb.RepositoryIndexResponse(models=[{"name": "grey", "version": "1", "state": "READY"}])

    async def ModelInfer(self, request: Any, _: grpc.aio.ServicerContext) -> Any:  # noqa: N802 - of the protocol
        self.asked += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.answered += 1
        (latent,) = request.inputs
        output = pb.ModelInferResponse.InferOutputTensor(
            name="sample", datatype=latent.datatype, shape=latent.shape
        )
        return pb.ModelInferResponse(
            model_name="grey", outputs=[output], raw_output_contents=request.raw_input_contents
        )


@asynccontextmanager
async def serving(release: Release) -> AsyncIterator[None]:
    """The server, until the block is left; calls end with it."""
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(release, server)
    release.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)

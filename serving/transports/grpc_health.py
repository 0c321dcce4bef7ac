"""The standard health service of gRPC, whose watches end with the server instead of holding it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 1.0


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # untyped
    """Health of some services, all alike: serving while there is nothing against it."""

    def __init__(self, services: Sequence[str], not_ready: Callable[[], str | None]) -> None:
        self._services = ("", *services)
        self._not_ready = not_ready
        self._ready = False
        self._ended = False
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 (protobuf's name)
        """How a service is now; NOT_FOUND for one that there is not."""
        if request.service not in self._services:
            known = ", ".join(self._services[1:])
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}: there is {known}"
            )
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """How a service is and becomes, until the client goes away or the server stops."""
        told = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            if self._ended:
                return
            await changed.wait()

    async def follow(self, draining: asyncio.Event) -> None:
        """Keeps up with how it is, until the gateway is going to stop; then says that, at once."""
        while not draining.is_set():
            self._tell(ready=self._not_ready() is None)
            try:
                async with asyncio.timeout(_SECONDS):
                    await draining.wait()
            except TimeoutError:
                continue
        self._tell(ready=False)

    def end(self) -> None:
        """Says that nothing is served any more, and ends the watches."""
        self._ended = True
        self._tell(ready=False)

    def _status(self, service: str) -> int:
        response = health_pb2.HealthCheckResponse
        if service not in self._services:
            return int(response.SERVICE_UNKNOWN)
        return int(response.SERVING if self._ready else response.NOT_SERVING)

    def _tell(self, *, ready: bool) -> None:
        self._ready = ready
        self._changed.set()
        self._changed = asyncio.Event()

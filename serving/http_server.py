"""An HTTP application served until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from math import ceil

import uvicorn
from starlette.types import ASGIApp

from serving.settings import Settings

_PARTING_SECONDS = 1  # beyond the grace, in which those that the service cut off are told


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to us, as two of them and gRPC stop together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_http(
    app: ASGIApp, listener: socket.socket, settings: Settings, stopping: asyncio.Event
) -> None:
    """Serve an application on a socket until `stopping`; requests under way then get their grace."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=ceil(settings.shutdown_grace + _PARTING_SECONDS),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await stopping.wait()
    finally:
        server.should_exit = True
        await task

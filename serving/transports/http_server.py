"""An HTTP application served until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.settings import Settings
from serving.transports.http_requests import PRESENCE, WHOLE_BODY, Presence

_PARTING_SECONDS = 1  # beyond the grace, in which those that the service cut off are told
_CLOSE = (b"connection", b"close")
_HEAD_BYTES = 65_536
# Longer than load balancers keep idle connections, 60 s as a rule: who closes first never meets a request.
_IDLE_SECONDS = 75


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to us, as two of them and gRPC stop together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def send_away(self) -> None:
        """From now on every answer closes its connection, so that whoever is on it connects elsewhere."""
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            if _CLOSE not in headers:
                headers.append(_CLOSE)


class _Protocol(HttpToolsProtocol):
    """A connection that is closed where the head of a request does not come, or does not end.

    So is one on which the rest of a body does not come to its end long after it was refused.
    """

    def __init__(self, *, receive_timeout: float, **named: Any) -> None:
        super().__init__(**named)
        self._receive_timeout = receive_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = False
        self._in_body = False
        self._presence = Presence()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)
        self._presence.end()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head or self._head_bytes:  # as a rule heads come whole
            self._expect()
        if self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is over {_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()
        self.scope["state"] |= {PRESENCE: self._presence}

    def on_headers_complete(self) -> None:
        self._arrived()
        self._in_head = False
        self._in_body = True
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > _HEAD_BYTES:
            raise ValueError("a head of that size")  # the parser ends, and uvicorn answers 400
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._arrived()
        self._in_body = False
        self.scope["state"] |= {WHOLE_BODY: True}
        super().on_message_complete()
        # uvicorn stops reading where much of a body waits, and whether the client goes is only read.
        if not self.pipeline:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body:  # closed at once, the connection would take the answer with it
            self._expect()

    def _expect(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._receive_timeout, self.transport.close)

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._head_bytes = 0


async def run_http(
    app: ASGIApp,
    listener: socket.socket,
    settings: Settings,
    stopping: asyncio.Event,
    *,
    draining: asyncio.Event | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve an application on a socket until `stopping`; requests under way then get their grace.

    From `draining` on answers close their connections.
    """
    config = uvicorn.Config(
        app,
        http=partial(_Protocol, receive_timeout=settings.receive_timeout),  # type: ignore[arg-type] # makes one
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=ceil(settings.shutdown_grace + _PARTING_SECONDS),
    )
    config.load()
    config.ssl = tls
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    drain = None if draining is None else asyncio.create_task(_drain(server, draining))
    try:
        await stopping.wait()
    finally:
        if drain is not None:
            drain.cancel()
        server.send_away()
        server.should_exit = True
        await task


async def _drain(server: _Server, draining: asyncio.Event) -> None:
    await draining.wait()
    server.send_away()

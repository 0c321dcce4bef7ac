"""A Kubernetes Service in small: connections go to gateways that are ready, and stay where they went."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.http_client import HttpClient

_CHUNK = 65_536


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Ports of one gateway on the loopback."""

    http: int
    """HTTP."""
    grpc: int
    """gRPC."""
    metrics: int
    """Metrics, where readiness is asked for."""


class Endpoints:
    """The gateways that there are, and those that new connections go to.

    As kube-proxy does it: who is ready is looked at now and then, a new connection goes to the next of them,
    and one that is there already is left alone, whatever its gateway says by now.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, period: float) -> None:
        """`period` is the time in seconds between two looks at the readiness of each."""
        self._endpoints = endpoints
        self._period = period
        self._turns = itertools.count()
        self._piping: set[asyncio.Task[None]] = set()
        self._looked = asyncio.Event()
        self.ready: list[Endpoint] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Mapping[str, int]]:
        """The ports of the Service, `http` and `grpc`."""
        looking = asyncio.create_task(self._look())
        servers = {
            kind: await asyncio.start_server(self._proxy(kind), "127.0.0.1", 0) for kind in ("http", "grpc")
        }
        try:
            yield {kind: server.sockets[0].getsockname()[1] for kind, server in servers.items()}
        finally:
            for server in servers.values():
                server.close()
            for task in (looking, *self._piping):
                task.cancel()
            await asyncio.gather(looking, *self._piping, return_exceptions=True)

    async def until(self, endpoint: Endpoint, *, ready: bool) -> None:
        """Until the Service knows that a gateway is ready, or that it is not."""
        while (endpoint in self.ready) != ready:
            await self._looked.wait()

    async def _look(self) -> None:
        while True:
            said = await asyncio.gather(*(_is_ready(endpoint) for endpoint in self._endpoints))
            self.ready = [endpoint for endpoint, ready in zip(self._endpoints, said, strict=True) if ready]
            self._looked.set()
            self._looked = asyncio.Event()
            await asyncio.sleep(self._period)

    def _proxy(self, kind: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._pipe(kind, reader, writer))
            self._piping.add(task)
            task.add_done_callback(self._piping.discard)

        return connected

    async def _pipe(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries a connection to a gateway that is ready, and closes it where there is none."""
        try:
            if not self.ready:
                return
            endpoint = self.ready[next(self._turns) % len(self.ready)]
            there, here = await asyncio.open_connection("127.0.0.1", getattr(endpoint, kind))
            try:
                await asyncio.gather(_carry(reader, here), _carry(there, writer))
            finally:
                here.close()
        except OSError:
            return
        finally:
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


async def _is_ready(endpoint: Endpoint) -> bool:
    try:
        async with asyncio.timeout(1), HttpClient(endpoint.metrics) as client:
            status, _ = await client.get("/readyz")
    except (OSError, EOFError, TimeoutError):
        return False
    return status == 200

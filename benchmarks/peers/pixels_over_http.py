"""A server that takes a request as JSON and answers with pixels over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from benchmarks.http_client import HttpClient
from benchmarks.mixes import Ask

Wrap = Callable[[dict[str, Any]], dict[str, Any]]
"""The fields of a request to the JSON object that a server wants."""


async def outcome(client: HttpClient, path: str, body: bytes, within: float) -> str:
    """What becomes of a request in so many seconds: "ok", "refused", "late" or "failed"."""
    try:
        async with asyncio.timeout(within):
            status, _ = await client.post(path, body)
    except TimeoutError:
        return "late"
    except (OSError, EOFError):
        return "failed"
    return {200: "ok", 429: "refused", 503: "refused", 504: "late"}.get(status, "failed")


class PixelsOverHttp:
    """One path of a server."""

    process_id: int | None = None
    """Leads the group of its processes, where those compute though nobody asks them anything."""

    def __init__(
        self, client: HttpClient, path: str, health: str, wrap: Wrap = lambda fields: fields
    ) -> None:
        self._client = client
        self._path = path
        self._health = health
        self._wrap = wrap

    async def send(self, ask: Ask) -> str:
        """Sends a request and waits for its pixels."""
        return await outcome(self._client, self._path, self._body(ask), ask.timeout)

    async def answer(self, ask: Ask) -> bytes:
        """The body of the answer as it is."""
        _, content = await self._client.post(self._path, self._body(ask))
        return content

    async def ready(self) -> bool:
        """Whether it can be asked."""
        try:
            status, _ = await self._client.get(self._health)
        except (OSError, EOFError):
            return False
        return status == 200

    def _body(self, ask: Ask) -> bytes:
        fields: dict[str, Any] = {
            "seed": ask.seed,
            "count": ask.count,
            "class_id": ask.class_id,
            "steps": ask.steps,
            "sampler_name": ask.sampler,
            "guidance_scale": ask.guidance_scale,
        }
        return json.dumps(self._wrap(fields)).encode()

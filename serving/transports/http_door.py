"""The door of the HTTP port: in front of everything that is mounted there, whoever mounts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.callers import ANYBODY, Caller, came_straight, is_local
from serving.access.door import Door
from serving.errors import ServingError
from serving.transports.http_errors import TooLargeError, TooSlowError, error_response

# What says nothing of anybody's business: probes, and the pages that ask for a key.
_OPEN = frozenset(
    {"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
)
_OPEN_FOLDER = "/web/"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


# What only a body that was turned away is answered with.
_OF_BODIES = {TooLargeError.status_code: "too_large", TooSlowError.status_code: "too_slow"}


class HttpDoor:
    """ASGI middleware that lets in who may come in, and notes in the scope who it is.

    `turned_away` counts who may not, and whose body is not taken.
    """

    def __init__(self, app: ASGIApp, door: Door, turned_away: Callable[[str], None]) -> None:
        self._app = app
        self._door = door
        self._turned_away = turned_away

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] == "http" and not _open(scope["path"]):
            headers = headers_of(scope)
            try:
                scope["state"]["caller"] = self._door.enter(headers, local=_local(scope, headers))
            except ServingError as error:
                if error.turned_away is not None:
                    self._turned_away(error.turned_away)
                await error_response(error)(scope, receive, send)
                return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _OF_BODIES:
                self._turned_away(_OF_BODIES[message["status"]])
            await send(message)

        await self._app(scope, receive, counted)


def headers_of(scope: Scope) -> Mapping[str, str]:
    """The headers of a request by their names in lower case, the first of each, read once."""
    state = scope.setdefault("state", {})
    headers: Mapping[str, str] | None = state.get("headers")
    if headers is None:
        pairs = reversed(scope["headers"])
        headers = state["headers"] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in pairs
        }
    return headers


def caller_of(request: Request) -> Caller:
    """Who sent a request that came through the door."""
    caller: Caller = request.scope.get("state", {}).get("caller", ANYBODY)
    return caller


def client_of(request: Request) -> str:
    """Whose turn it is when there are many: by the name of their key, else by their address."""
    return caller_of(request).name or (request.client.host if request.client else "")


def _open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


def _local(scope: Scope, headers: Mapping[str, str]) -> bool:
    client = scope.get("client")
    forwarded = [headers.get(name, "") for name in _FORWARDED]
    straight = came_straight(headers.get("host", ""), headers.get("origin", ""), forwarded)
    return straight and is_local(client[0] if client else "")

"""Errors over HTTP: a status, and the same `google.rpc.Status` as over gRPC, in JSON."""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.errors import Code, ServingError
from serving.transports.status import HTTP_CODES, to_json


class HttpServingError(ServingError):
    """An error for which HTTP has a status of its own."""

    status_code: int
    """The status."""


class TooLargeError(HttpServingError):
    """A body over the limit."""

    status_code = 413

    def __init__(self, limit: int, when: str = "") -> None:
        super().__init__(
            Code.RESOURCE_EXHAUSTED,
            f"the body is over {limit} bytes{when}: send less at a time, or raise --max-message-bytes",
        )


class TooSlowError(HttpServingError):
    """A body that does not come."""

    status_code = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(
            Code.DEADLINE_EXCEEDED,
            f"the body was not there after {seconds:.0f} s: send it faster, or raise --receive-timeout",
        )


class MediaTypeError(HttpServingError):
    """A body of a type that is not taken."""

    status_code = 415

    def __init__(self, message: str) -> None:
        super().__init__(Code.INVALID_ARGUMENT, message)


def error_response(error: ServingError) -> Response:
    """An error as it is answered."""
    code, headers = status_and_headers(error)
    return JSONResponse(to_json(error, code), status_code=code, headers=headers)


def status_and_headers(error: ServingError) -> tuple[int, dict[str, str]]:
    """What is said of an error outside the body, whatever the body is."""
    code = error.status_code if isinstance(error, HttpServingError) else HTTP_CODES[error.code]
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif code == 429:
        headers["Retry-After"] = "1"
    elif code == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="atelier"'
    return code, headers


async def answer_error(request: Request, error: Exception) -> Response:
    """What is answered when something is refused."""
    if isinstance(error, ServingError):
        return error_response(error)
    assert isinstance(error, HTTPException)
    status = {404: Code.NOT_FOUND, 405: Code.UNIMPLEMENTED}.get(error.status_code, Code.INVALID_ARGUMENT)
    message = f"{request.method} {request.url.path}: {error.detail}; GET /docs shows what there is"
    body = to_json(ServingError(status, message), error.status_code)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


EXCEPTION_HANDLERS = {ServingError: answer_error, HTTPException: answer_error}
"""The same for an application."""

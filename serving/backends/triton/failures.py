"""What Triton says when something fails, as this gateway says it."""

from __future__ import annotations

from typing import Any

from serving.errors import Code, ServingError

# INTERNAL and the like are faults of the server or of us: they leave as any other exception does, and the log
# has them in full.
_CODES = {
    "StatusCode.UNAVAILABLE": Code.UNAVAILABLE,
    "StatusCode.NOT_FOUND": Code.UNAVAILABLE,  # the graph was there when the request was let in
    "StatusCode.CANCELLED": Code.UNAVAILABLE,
    "StatusCode.DEADLINE_EXCEEDED": Code.UNAVAILABLE,
    "StatusCode.RESOURCE_EXHAUSTED": Code.RESOURCE_EXHAUSTED,
}
_RETRY_SECONDS = 1.0


class TritonError(Exception):
    """A call that Triton refused or failed for no reason that a client could mend."""


def failure(error: Any, address: str, what: str) -> Exception:
    """An `InferenceServerException` as a `ServingError`, or a `TritonError` where it is an internal one."""
    code = _CODES.get(error.status() or "")
    said = f"Triton at {address}: {what}: {error.message()}"
    return ServingError(code, said, retry_after=_RETRY_SECONDS) if code else TritonError(said)


def lost(address: str) -> ServingError:
    """Of a call to a server that has gone, or does not answer any more."""
    return ServingError(
        Code.UNAVAILABLE, f"Triton at {address} does not answer; ask again", retry_after=_RETRY_SECONDS
    )

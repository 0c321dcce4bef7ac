"""Errors that a client is told of: a canonical code, a sentence, and the field that was wrong.

The codes are those of `google.rpc.Code` that this gateway uses; each transport maps them once.
Anything that is not a `ServingError` is an internal error: logged in full, told to nobody.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum


class Code(StrEnum):
    """Canonical error codes (google.rpc.Code, AIP-193)."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"


class ServingError(Exception):
    """What went wrong, in the client's terms.

    `field` is the path of the request field at fault (for example `class_label`), `retry_after` the
    seconds after which the same request may succeed, `turned_away` in a word why a caller was, for the count
    of those (`metrics.TURNED_AWAY`).
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        field: str | None = None,
        retry_after: float | None = None,
        turned_away: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.turned_away = turned_away

    def again(self) -> ServingError:
        """The same error for one more request, since a traceback belongs to one."""
        return ServingError(self.code, self.message, field=self.field, retry_after=self.retry_after)


def invalid(field: str, message: str) -> ServingError:
    """An INVALID_ARGUMENT that names the field; `message` gives the value and the remedy."""
    return ServingError(Code.INVALID_ARGUMENT, message, field=field)


def not_found(field: str, message: str) -> ServingError:
    """A NOT_FOUND that names the field; `message` gives the value and what there is instead."""
    return ServingError(Code.NOT_FOUND, message, field=field)


def one_of(names: Iterable[str], asked: str = "", limit: int = 20) -> str:
    """The allowed names as prose, the nearest to `asked` first: `zero, one, two, ... (10 in all)`."""
    known = list(names)
    near = difflib.get_close_matches(asked, known, n=3, cutoff=0.6) if asked else []
    ordered = [*near, *(name for name in known if name not in near)]
    if len(ordered) <= limit:
        return ", ".join(ordered)
    return f"{', '.join(ordered[:limit])}, ... ({len(ordered)} in all)"

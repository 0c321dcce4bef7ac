"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How it stands with something."""

    OK = "ok"
    WARNING = "warning"
    """The gateway runs, and somebody will be sorry."""
    FAILURE = "failure"
    """The gateway does not start, or does not serve what it should."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at, in a word or two."""
    status: Status
    """How it stands with it."""
    message: str
    """What was found."""
    remedy: str = ""
    """What to do about it."""


def fine(check: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(check=check, status=Status.OK, message=message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Something to see to."""
    return Finding(check=check, status=Status.WARNING, message=message, remedy=remedy)


def failure(check: str, message: str, remedy: str) -> Finding:
    """Something that has to be done first."""
    return Finding(check=check, status=Status.FAILURE, message=message, remedy=remedy)

"""Lines of the log: text, or JSON on request, with the request and the trace that they are about."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Literal, TextIO

from serving.observing.tracing import current, trace_id

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being worked on, as its client or its transport named it."""

_LONGEST_ID = 128


def configure(level: str, style: Literal["text", "json"], stream: TextIO = sys.stderr) -> None:
    """Sends the log of this process to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if style == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])


class Text(logging.Formatter):
    """`2026-01-31 12:00:00,000 ERROR serving.service: what happened (request r-17, trace 4bf9...)`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of the standard library
        """The line without a traceback."""
        about = ", ".join(f"{name.removesuffix('_id')} {_plain(value)}" for name, value in _about().items())
        return super().formatMessage(record) + (f" ({about})" if about else "")


class JsonLines(logging.Formatter):
    """An object a line: time (RFC 3339, UTC), level, logger, message, and request_id, trace_id and exception
    where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _plain(value: str) -> str:
    """As it is, unless it would look like something else: clients choose their ids."""
    return value if value.isprintable() and " " not in value else repr(value)


def _about() -> dict[str, str]:
    about = {}
    if request := request_id.get():
        about["request_id"] = request[:_LONGEST_ID]
    if (traced := current()) is not None:
        about["trace_id"] = trace_id(traced)
    return about

"""Lines of the log."""

import io
import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider

from serving.observing.logs import JsonLines, Text, request_id
from serving.observing.tracing import request_span


@pytest.fixture
def log() -> logging.Logger:
    logger = logging.Logger("serving.somewhere")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    return logger


def written(log: logging.Logger, style: logging.Formatter) -> str:
    """What the logger writes about a failure in a request that is traced."""
    (handler,) = log.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setFormatter(style)
    before = request_id.set("r-17\n")
    try:
        with request_span(TracerProvider().get_tracer("test"), "POST v1", {}, {}):
            try:
                raise ValueError("the reason")
            except ValueError:
                log.exception("it %s", "failed")
    finally:
        request_id.reset(before)
    text: str = handler.stream.getvalue()
    return text


def test_a_json_line_is_one_object_with_request_trace_and_exception(log: logging.Logger):
    (line,) = written(log, JsonLines()).splitlines()
    said = json.loads(line)
    assert said["level"] == "error"
    assert said["logger"] == "serving.somewhere"
    assert said["message"] == "it failed"
    assert said["request_id"] == "r-17\n"
    assert len(said["trace_id"]) == 32
    assert said["exception"].endswith("ValueError: the reason")
    assert said["time"].endswith("Z")


def test_a_text_line_names_request_and_trace_and_a_request_cannot_forge_a_line(log: logging.Logger):
    first, second, *_ = written(log, Text()).splitlines()
    assert "ERROR serving.somewhere: it failed (request 'r-17\\n', trace " in first
    assert second.startswith("Traceback")


def test_outside_of_a_request_a_line_names_none(log: logging.Logger):
    (handler,) = log.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setFormatter(Text())
    log.warning("hello")
    assert handler.stream.getvalue().endswith("WARNING serving.somewhere: hello\n")
    handler.setFormatter(JsonLines())
    log.warning("hello")
    assert json.loads(handler.stream.getvalue().splitlines()[-1]).keys() == {
        "time",
        "level",
        "logger",
        "message",
    }

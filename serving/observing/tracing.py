"""Spans of requests and of the calls that are made for them, by OpenTelemetry.

A request's span is opened by its transport, with whatever W3C context the client sent. Below it stand the
decoding of its pictures, each of its steps with its time in the queue, and the encoding. A call of
the backend serves several requests: its span stands below the step of one of them, and is linked with all.

Off by default. What it costs then is to look whether the current request has a span.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

_PROPAGATOR = TraceContextTextMapPropagator()
_NO_SPAN = nullcontext()

# What is the gateway's fault: the others are the client's, and no error of the span.
_FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED", "DEADLINE_EXCEEDED"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """A span that is recorded, and what opens spans below it."""

    tracer: Tracer
    """Of the gateway."""
    span: Span
    """Open."""

    def below(self) -> Context:
        """The context of spans below it."""
        return set_span_in_context(self.span, Context())


_current: ContextVar[Traced | None] = ContextVar("traced", default=None)


def current() -> Traced | None:
    """What the current request or call is traced as, if it is."""
    return _current.get()


@contextmanager
def request_span(
    tracer: Tracer, name: str, headers: Mapping[str, str], attributes: Mapping[str, AttributeValue]
) -> Iterator[Span]:
    """The span of a request, for a transport. Names of `headers` are in lower case; a W3C context counts."""
    parent = _PROPAGATOR.extract(headers, Context())
    span = tracer.start_span(name, parent, SpanKind.SERVER, dict(attributes))
    with _open(tracer, span):
        yield span


def describe_request(**attributes: str) -> None:
    """Says of the current request what is known of it by now; empty values are left out."""
    traced = _current.get()
    if traced is not None:
        traced.span.set_attributes({f"atelier.{name}": value for name, value in attributes.items() if value})


def end_request(code: str) -> None:
    """Says how the current request ended: a canonical code."""
    traced = _current.get()
    if traced is not None:
        traced.span.set_attribute("atelier.code", code)
        if code in _FAULTS:
            traced.span.set_status(StatusCode.ERROR, code)


def span(name: str, traced: Traced | None = None) -> AbstractContextManager[None]:
    """A span of work inside of a request: of the current one, or of another that is traced."""
    traced = traced or _current.get()
    if traced is None:
        return _NO_SPAN
    return _open(traced.tracer, traced.tracer.start_span(name, traced.below()))


def begin_step(traced: Traced | None, graph: str, rows: int) -> Traced | None:
    """Opens the span of a step of a request: a call that it waits for. `end_step` closes it."""
    if traced is None:
        return None
    attributes: dict[str, AttributeValue] = {"atelier.graph": graph, "atelier.rows": rows}
    opened = traced.tracer.start_span(f"step {graph}", traced.below(), attributes=attributes)
    return Traced(tracer=traced.tracer, span=opened)


def leave_queue(step: Traced | None, graph: str, seconds: float) -> None:
    """The span of the time that a step has waited for an instance, up to now."""
    if step is not None:
        now = time_ns()
        queued = step.tracer.start_span(f"queue {graph}", step.below(), start_time=now - round(seconds * 1e9))
        queued.end(now)


def end_step(step: Traced | None) -> None:
    """Closes the span of a step."""
    if step is not None:
        step.span.end()


def call_span(
    graph: str, version: int, rows: int, steps: Sequence[Traced | None]
) -> AbstractContextManager[None]:
    """The span of one call of the backend, on behalf of the steps that are traced."""
    traced = [step for step in steps if step is not None]
    if not traced:
        return _NO_SPAN
    first = traced[0]
    links = [Link(step.span.get_span_context()) for step in traced]
    attributes: dict[str, AttributeValue] = {
        "atelier.graph": graph,
        "atelier.version": version,
        "atelier.rows": rows,
        "atelier.requests": len(steps),
    }
    called = first.tracer.start_span(f"call {graph}", first.below(), SpanKind.CLIENT, attributes, links)
    for step in traced[1:]:
        step.span.add_link(called.get_span_context())
    return _open(first.tracer, called)


def inject() -> dict[str, str]:
    """The W3C headers that make what another server does part of the current span, if there is one."""
    traced = _current.get()
    carrier: dict[str, str] = {}
    if traced is not None:
        _PROPAGATOR.inject(carrier, traced.below())
    return carrier


def exemplar(traced: Traced | None) -> dict[str, str] | None:
    """What ties a figure to the trace that it is from."""
    return None if traced is None else {"trace_id": trace_id(traced)}


def trace_id(traced: Traced) -> str:
    """As W3C writes it: 32 hexadecimal digits."""
    return f"{traced.span.get_span_context().trace_id:032x}"


@contextmanager
def _open(tracer: Tracer, opened: Span) -> Iterator[None]:
    """Makes a span the current one, if it is recorded; one that is not has nothing below it."""
    before = _current.get()
    _current.set(Traced(tracer=tracer, span=opened) if opened.is_recording() else None)
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            opened.set_status(StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        # Not by token: a stream that nobody reads to its end is closed in another context.
        _current.set(before)
        opened.end()

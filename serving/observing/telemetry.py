"""Where spans go: an OTLP collector, as the standard `OTEL_*` variables say. Needs the extra `tracing`."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from opentelemetry.trace import Tracer

from serving.errors import Code, ServingError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_LAST_SPANS_MILLISECONDS = 2000


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether spans are to be sent: an endpoint or exporter is named, and nothing switches it off."""
    exporter = environment.get(_EXPORTER, "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    return bool(exporter or any(environment.get(name) for name in _ENDPOINTS))


@asynccontextmanager
async def open_tracer(environment: Mapping[str, str]) -> AsyncIterator[Tracer | None]:
    """A tracer that sends its spans in the background; None where tracing is off.

    Endpoint, headers, TLS, sampler, batch sizes and resource attributes are read from the variables by
    OpenTelemetry itself. Raises `ServingError` FAILED_PRECONDITION where what they ask for is not there.
    """
    if not wanted(environment):
        yield None
        return
    _check(environment)
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"OTEL_* variables ask for traces, but {error.name} is not installed: pip install "
            "'atelier[tracing]', or set OTEL_TRACES_EXPORTER=none",
        ) from error
    version = importlib.metadata.version("atelier")
    # What is set in code wins over the variables, so the name is only a default.
    resource = Resource.create({SERVICE_VERSION: version})
    if not (
        environment.get("OTEL_SERVICE_NAME")
        or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    ):
        resource = resource.merge(Resource({SERVICE_NAME: "atelier"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("atelier", version)
    finally:
        await asyncio.to_thread(provider.force_flush, _LAST_SPANS_MILLISECONDS)
        await asyncio.to_thread(provider.shutdown)


def _check(environment: Mapping[str, str]) -> None:
    exporter = environment.get(_EXPORTER) or "otlp"
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
    for variable, value, known in ((_EXPORTER, exporter, "otlp"), (_PROTOCOLS[1], protocol, "grpc")):
        if value != known:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"{variable}={value} is not supported: leave it out, or set it to {known}",
            )

"""Errors as clients see them: one `google.rpc.Status` for gRPC and, in JSON, for HTTP (AIP-193)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

from serving.errors import Code, ServingError

HTTP_CODES: Mapping[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.FAILED_PRECONDITION: 400,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
    Code.CANCELLED: 499,
    Code.INTERNAL: 500,
}
"""HTTP status of each code, as Google's APIs map them."""


def internal_error(request_id: str) -> ServingError:
    """What a client is told of an error that is not its own: where the log has it, and nothing else."""
    return ServingError(Code.INTERNAL, f"internal error: the gateway's log has it under request {request_id}")


def to_status(error: ServingError) -> status_pb2.Status:
    """The error as `google.rpc.Status`: BadRequest names the field, RetryInfo says when to come again."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
        status.details.add().Pack(retry)
    return status


def to_json(error: ServingError, http_code: int | None = None) -> dict[str, Any]:
    """The error as the body of an HTTP answer, `{"error": {"code", "status", "message", "details"}}`."""
    status = json_format.MessageToDict(to_status(error))
    return {
        "error": {
            "code": http_code or HTTP_CODES[error.code],
            "status": str(error.code),
            "message": error.message,
            "details": status.get("details", []),
        }
    }

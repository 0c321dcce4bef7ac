"""The one error of the clients, read from what gRPC reports."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS = "grpc-status-details-bin"


class AtelierError(Exception):
    """What the gateway refused, or that it cannot be reached.

    `code` is the canonical code (`INVALID_ARGUMENT`), `field` the request field at fault, `retry_after` the
    seconds after which the same request may succeed.
    """

    def __init__(
        self, code: str, message: str, *, field: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after = retry_after


def from_rpc_error(error: grpc.RpcError, address: str) -> AtelierError:
    """The error of a failed call to the gateway at `address`."""
    call: Any = error
    code: str = call.code().name
    status = _status(call.trailing_metadata())
    if status is None and code == "UNAVAILABLE":
        return AtelierError(
            code,
            f"no gateway answers at {address}; start one with `atelier serve`, or say where it is "
            f"({call.details()})",
        )
    field = retry_after = None
    for detail in status.details if status is not None else ():
        request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(request) and request.field_violations:
            field = request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return AtelierError(code, call.details() or code, field=field, retry_after=retry_after)


def _status(metadata: Any) -> Any:
    """The `google.rpc.Status` that the gateway sends with its errors, where there is one."""
    for key, value in metadata or ():
        if key == _DETAILS:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None

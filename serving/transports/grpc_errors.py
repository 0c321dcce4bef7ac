"""Errors over gRPC: the code, the sentence, and a `google.rpc.Status` with the details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from serving.errors import Code, ServingError
from serving.transports.status import to_status

GRPC_CODES: Mapping[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}
"""gRPC's status of each code."""

_DETAILS = "grpc-status-details-bin"  # where gRPC's rich error model keeps a google.rpc.Status


async def end(context: Any, error: ServingError) -> None:
    """Ends a call with an error; never returns."""
    details = ((_DETAILS, to_status(error).SerializeToString()),)
    await context.abort(GRPC_CODES[error.code], error.message, details)

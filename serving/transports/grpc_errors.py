"""Errors over gRPC: the code, the sentence, and a `google.rpc.Status` with the details."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio

from serving.errors import Code, ServingError
from serving.transports.status import to_status

GRPC_CODES: Mapping[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}
"""gRPC's status of each code."""

_DETAILS = "grpc-status-details-bin"  # where gRPC's rich error model keeps a google.rpc.Status


async def end(context: Any, error: ServingError) -> None:
    """Ends a call with an error; never returns."""
    details = ((_DETAILS, to_status(error).SerializeToString()),)
    try:
        await context.abort(GRPC_CODES[error.code], error.message, details)
    except grpc.aio.AbortError as aborted:
        task = asyncio.current_task()
        assert task is not None, "calls run in tasks"
        task.add_done_callback(partial(_let_go, aborted))
        raise


def _let_go(aborted: grpc.aio.AbortError, _: asyncio.Task[Any]) -> None:
    """Frees what a refused call holds: gRPC keeps the error with the call, whose frames are in its traceback.

    Left to the garbage collector it would come in tens of milliseconds at a time, under overload.
    """
    aborted.__traceback__ = aborted.__context__ = None

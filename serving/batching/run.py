"""Runs a program on the engine."""

from __future__ import annotations

from collections.abc import Callable

from serving.batching.engine import Engine
from serving.batching.lane import Ticket
from serving.calls import Program, Progress, Result, Tensors


async def run(
    program: Program[Result],
    engine: Engine,
    ticket: Ticket,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """What the program returns, its calls computed by the engine and its progress told as it comes."""
    reply: Tensors | None = None
    try:
        while True:
            wanted = program.send(reply)
            if isinstance(wanted, Progress):
                reply = None
                if progress is not None:
                    progress(wanted)
            else:
                reply = await engine.call(wanted, ticket)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        program.close()

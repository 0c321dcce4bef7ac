"""Calls and programs: every way of asking a model is a generator of calls.

A program yields what it wants computed and is sent the result; it does no I/O and knows no transport,
no batching and no backend. Whoever runs it sends each `Call` to an engine and each `Progress` to whom
it may concern (the reply to a `Progress` is None). What the generator returns is the result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """Rows for one graph. All inputs have the same first axis: the rows."""

    graph: str
    """Graph to call; the version is the one that the request was resolved to."""
    inputs: Tensors
    """Input tensors by name, each [rows, ...]."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))


class Computed(NamedTuple):
    """What a backend made of a call."""

    outputs: Tensors
    """Output tensors by name, each [rows, ...]."""
    seconds: float
    """Time of the call itself, without what it waited for an instance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a program has come."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    denoised: Array | None = None
    """The present estimate of the result, [count, channels, height, width], where there is one."""


Result = TypeVar("Result")
Program = Generator[Call | Progress, Tensors | None, Result]
"""What a request becomes: yields calls and progress, returns the result."""


Tell = Callable[[Progress], None]
"""Who is told of progress."""


def once(graph: str, inputs: Tensors) -> Program[Tensors]:
    """One call for all of its outputs."""
    outputs = yield Call(graph=graph, inputs=inputs)
    assert outputs is not None, "a call is answered with tensors"
    return outputs


def ask(graph: str, inputs: Tensors, output: str) -> Generator[Call, Tensors, Array]:
    """One call for one of its outputs: `sample = yield from ask(graph, inputs, "sample")`."""
    outputs = yield Call(graph=graph, inputs=inputs)
    return np.asarray(outputs[output], np.float32)

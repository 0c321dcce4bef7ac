"""What is asked of a graph and what it answers, in the terms of no transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Bytes of a region of shared memory that a client has registered."""

    region: str
    """Name under which it was registered."""
    offset: int
    """Bytes from the region's start."""
    byte_size: int
    """Number of bytes."""


Content = bytes | memoryview | NDArray[Any] | Place
"""A tensor's elements: little-endian bytes, an array of any shape, or where they lie."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputTensor:
    """One input of a request, as the client says it."""

    name: str
    """Name of the input."""
    datatype: str
    """Element type, such as FP32."""
    shape: tuple[int, ...]
    """Shape with the batch axis first."""
    content: Content | None
    """Its elements; None where the request has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedOutput:
    """One output that a request asks for."""

    name: str
    """Name of the output."""
    classes: int = 0
    """Number of greatest elements to name in place of the tensor; 0 for the tensor."""
    place: Place | None = None
    """Where to write it; None to send it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferRequest:
    """Rows for one graph."""

    graph: str
    """Name of the graph."""
    version: str = ""
    """Version as the client says it; empty for the newest that is ready."""
    request_id: str = ""
    """The client's name for the request, which its answer bears too."""
    inputs: tuple[InputTensor, ...] = ()
    """Inputs in the order of the request."""
    outputs: tuple[WantedOutput, ...] = ()
    """Outputs that are asked for; empty for all of them."""
    priority: int = 0
    """0 for the default, 1 for the highest, and lower ones from there on."""
    timeout: int = 0
    """Microseconds after which nobody waits for it; 0 for no limit of its own."""

    @property
    def rows(self) -> int:
        """Rows of its first input, as the client says them."""
        return self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else 0

    @property
    def places(self) -> list[Place]:
        """Shared memory that it is read from or written to."""
        given = [each.content for each in self.inputs if isinstance(each.content, Place)]
        return given + [each.place for each in self.outputs if each.place is not None]

    @property
    def said(self) -> str:
        """How errors begin, as Triton's do."""
        return f"[request id: {self.request_id or '<id_unknown>'}] "


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputTensor:
    """One output of an answer."""

    name: str
    """Name of the output."""
    datatype: str
    """Element type, such as FP32; BYTES for a classification."""
    shape: tuple[int, ...]
    """Shape with the batch axis first."""
    array: NDArray[Any] | None
    """The elements; None where they were written to `place`."""
    place: Place | None = None
    """Where they were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferAnswer:
    """What the graph computed."""

    graph: str
    """Name of the graph."""
    version: int
    """The version that computed it."""
    request_id: str
    """That of the request."""
    outputs: tuple[OutputTensor, ...]
    """The outputs that were asked for."""

"""Backends: what computes a batch of rows. All pass one conformance suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from serving.calls import Computed, Tensors
from serving.catalog import Index

BACKENDS: dict[str, str] = {
    "onnxruntime": "serving.backends.onnxruntime:OnnxRuntimeBackend",
    "triton": "serving.backends.triton.backend:TritonBackend",
}
"""Backends by name, as import strings of classes with a `from_settings`, resolved on use."""


class Backend(Protocol):
    """An engine that holds graphs and computes batches of their rows."""

    async def index(self) -> Index:
        """Every graph in the repository, loaded or not; broken ones are refused with the reason.

        Asked again and again while the gateway runs. Raises OSError or `ServingError` where the repository
        cannot be read.
        """

    async def load(self, graph: str, version: int) -> None:
        """Make one version of a graph ready.

        Raises `ServingError` NOT_FOUND where there is none, FAILED_PRECONDITION where its file does not
        match its digest or does not load, UNAVAILABLE where the device asked for is not to be had. The
        first two hold until record or file change, unless the error has a `retry_after`.
        """

    async def unload(self, graph: str, version: int) -> None:
        """Let go of one version of a graph; unknown ones are ignored."""

    def ready(self, graph: str, version: int) -> bool:
        """Whether that version of the graph can be called now."""

    def instances(self, graph: str) -> int:
        """How many calls to the graph run at a time; more are of no use."""

    def slots(self) -> int:
        """How many calls to all graphs together run at a time; more would wait inside the engine."""

    def computes_here(self) -> bool:
        """Whether it computes on the cores that the gateway runs on.

        While an instance waits for the gateway its core is the gateway's then, and not idle.
        """

    async def infer(
        self, graph: str, version: int, inputs: Tensors, *, first: bool = False, here: bool = False
    ) -> Computed:
        """One call: inputs by name, each [rows, ...]; outputs likewise, and the time that it took.

        With `first` it does not wait for the calls before it, as far as the engine behind can do that; there
        are at most as many of those at a time as of the others. With `here` the thread of the event loop may
        compute it, if that is done on cores: it takes less time than to wake another one, and nobody waits.

        Cancelling ends the call where that can be; the inputs are not read any more when this returns.
        Raises `ServingError` UNAVAILABLE where the version is not loaded or the engine is gone.
        """

    def folder(self, graph: str) -> Path | None:
        """Where the graph lies, with its card beside it; None where that is out of sight."""

    def describe(self) -> Mapping[str, Any]:
        """What it runs on, for logs and `--print-config`: device, providers, version, threads."""

    async def close(self) -> None:
        """Let go of everything; calls under way finish first."""

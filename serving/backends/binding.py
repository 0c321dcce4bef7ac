"""Ways of calling a session: as it is, or on a GPU through buffers that stay where they are.

Bound buffers are there for a few sizes of batch, and a batch is padded to the next of them, as a CUDA graph
is recorded for one size. Inputs are copied into the device's buffers and outputs out of them; the copies use
ordinary (pageable) memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from serving.backends.example import example
from serving.backends.sessions import onnxruntime_and_providers
from serving.calls import Tensors
from serving.manifest import Manifest, TensorSpec

RUNS_TO_RECORD = 3
"""onnxruntime runs a graph twice as it is and records the third run, on the thread that calls."""

_SKIP = -1


def sizes(least: int, most: int) -> list[int]:
    """Sizes of batches: `least` doubled up to `most`, and `most` itself."""
    found = []
    while least < most:
        found.append(least)
        least *= 2
    return [*found, most]


def can_be_bound(manifest: Manifest) -> bool:
    """Whether the shapes of a graph are known up to the rows."""
    return not any(-1 in spec.shape for spec in (*manifest.inputs, *manifest.outputs))


class Direct:
    """A session that is given arrays and gives arrays."""

    def __init__(self, session: Any, manifest: Manifest) -> None:
        self._session = session
        self._outputs = [spec.name for spec in manifest.outputs]

    def run(self, inputs: Tensors) -> Tensors:
        """One call."""
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def warm_up(self, inputs: Tensors) -> None:
        """A first call, whose result nobody wants."""
        self.run(inputs)

    def release(self) -> None:
        """Let go of the session."""
        self._session = None


class Bound:
    """A session whose calls go through bound buffers; calls side by side get buffers each.

    With `graphs` calls must come from one thread, and those that record hold `device` meanwhile; where it is
    taken (a model is being loaded) they run as they are and leave the recording to a later call.
    """

    def __init__(
        self,
        session: Any,
        manifest: Manifest,
        *,
        least: int,
        device: Lock,
        kind: str = "cuda",
        graphs: bool = False,
    ) -> None:
        self._session = session
        self._manifest = manifest
        self._sizes = sizes(min(least, manifest.max_batch_size), manifest.max_batch_size)
        self._device = device
        self._kind = kind
        self._graphs = graphs
        self._free: dict[int, list[_Buffers]] = {size: [] for size in self._sizes}

    def run(self, inputs: Tensors) -> Tensors:
        """One call; fewer rows than the least are padded, and more than the most are not possible."""
        rows = len(next(iter(inputs.values())))
        place = bisect_left(self._sizes, rows)
        if place == len(self._sizes):
            raise ValueError(f"{rows} rows are more than the {self._sizes[-1]} of {self._manifest.graph}")
        free = self._free[self._sizes[place]]
        try:
            buffers = free.pop()
        except IndexError:
            buffers = _Buffers(self._session, self._manifest, rows=self._sizes[place], kind=self._kind)
        try:
            buffers.fill(inputs)
            self._call(buffers, graph=place + 1)
            return buffers.read(rows)
        finally:
            free.append(buffers)

    def warm_up(self, inputs: Tensors) -> None:
        """A first call, whose result nobody wants, from any thread: nothing is recorded."""
        with self._device:
            buffers = _Buffers(
                self._session, self._manifest, rows=len(next(iter(inputs.values()))), kind=self._kind
            )
            buffers.fill(inputs)
            buffers.run(_SKIP if self._graphs else None)

    def release(self) -> None:
        """Let go of session and buffers; on the thread that calls, as nothing is being recorded then."""
        self._free.clear()
        self._session = None

    def recorded(self) -> list[int]:
        """Sizes of batches that are replayed from now on."""
        return [
            size
            for size, free in self._free.items()
            if any(buffers.recordings >= RUNS_TO_RECORD for buffers in free)
        ]

    def _call(self, buffers: _Buffers, graph: int) -> None:
        if not self._graphs:
            buffers.run(None)
        elif buffers.recordings >= RUNS_TO_RECORD:
            buffers.run(graph)
        elif self._device.acquire(blocking=False):
            try:
                buffers.run(graph)
                buffers.recordings += 1
            finally:
                self._device.release()
        else:
            buffers.run(_SKIP)


class _Buffers:
    """Inputs and outputs of one size of batch, bound to a session."""

    def __init__(self, session: Any, manifest: Manifest, *, rows: int, kind: str) -> None:
        self._session = session
        self._rows = rows
        self._binding = session.io_binding()
        self._staged = example(manifest, rows)
        self._inputs = self._bind(manifest.inputs, kind, self._binding.bind_ortvalue_input)
        self._outputs = self._bind(manifest.outputs, kind, self._binding.bind_ortvalue_output)
        self.recordings = 0
        """Runs that were allowed to record."""

    def _bind(self, specs: Sequence[TensorSpec], kind: str, bind: Any) -> dict[str, Any]:
        onnxruntime, _ = onnxruntime_and_providers()
        values = {}
        for spec in specs:
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                [self._rows, *spec.shape], np.dtype(spec.dtype).type, kind, 0
            )
            bind(spec.name, value)
            values[spec.name] = value
        return values

    def fill(self, inputs: Tensors) -> None:
        """Copy rows to the device; those behind them keep what they held."""
        for name, value in self._inputs.items():
            given, staged = inputs[name], self._staged[name]
            if given.shape[1:] != staged.shape[1:] or given.dtype != staged.dtype:
                raise ValueError(
                    f"{name} has rows of {given.dtype} {list(given.shape[1:])} where the graph takes "
                    f"{staged.dtype} {list(staged.shape[1:])}"
                )
            if len(given) == self._rows:
                value.update_inplace(np.ascontiguousarray(given))
                continue
            staged[: len(given)] = given
            value.update_inplace(staged)

    def run(self, graph: int | None) -> None:
        """Compute, under the number of a CUDA graph where there is one."""
        options = None
        if graph is not None:
            options = onnxruntime_and_providers()[0].RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(graph))
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, options)
        self._binding.synchronize_outputs()

    def read(self, rows: int) -> Tensors:
        """The first rows of the outputs, copied from the device."""
        return {name: np.array(value.numpy()[:rows]) for name, value in self._outputs.items()}

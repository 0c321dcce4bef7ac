"""Tensors in memory that gateway and Triton share, where both are on one host, rather than in messages.

Opt-in, since the server must allow it too; where it is refused, tensors go in messages as they do without.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Literal, Protocol

import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.calls import Tensors
from serving.manifest import TensorSpec

log = logging.getLogger(__name__)

SharedMemoryKind = Literal["off", "system", "cuda"]

_WORTH_SHARING = 65_536  # bytes of a call: below, a message is as quick
_LEAST_BYTES = 1_048_576
_ALIGNED = 64
_CONTROL_SECONDS = 5.0


class Memory(Protocol):
    """A piece of memory that Triton can be told of."""

    def write(self, at: int, array: NDArray[Any]) -> None:
        """Puts an array there."""

    def read(self, at: int, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        """A copy of an array that is there."""

    async def register(self, client: Any, name: str) -> None:
        """Tells Triton of it. Raises `InferenceServerException` where it is not to be had."""

    async def unregister(self, client: Any, name: str) -> None:
        """Has Triton forget it."""

    def close(self) -> None:
        """Lets it go here; Triton keeps what it has mapped."""


class SystemMemory:
    """POSIX shared memory."""

    def __init__(self, size: int) -> None:
        self._memory = SharedMemory(create=True, size=size)

    def write(self, at: int, array: NDArray[Any]) -> None:
        self._view(at, str(array.dtype), array.shape)[...] = array

    def read(self, at: int, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        return self._view(at, dtype, shape).copy()

    async def register(self, client: Any, name: str) -> None:
        await client.register_system_shared_memory(
            name, f"/{self._memory.name}", self._memory.size, client_timeout=_CONTROL_SECONDS
        )

    async def unregister(self, client: Any, name: str) -> None:
        await client.unregister_system_shared_memory(name, client_timeout=_CONTROL_SECONDS)

    def close(self) -> None:
        self._memory.close()
        self._memory.unlink()

    def _view(self, at: int, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        return np.ndarray(tuple(shape), dtype, self._memory.buf, at)


class CudaMemory:
    """Memory of the first GPU, which Triton opens by its handle: tensors need not pass through its host."""

    def __init__(self, size: int) -> None:
        from tritonclient.utils import cuda_shared_memory  # wants cuda-python, which a machine with a GPU has

        self._cuda = cuda_shared_memory
        self._size = size
        self._memory = cuda_shared_memory.create_shared_memory_region(secrets.token_hex(8), size, 0)

    def write(self, at: int, array: NDArray[Any]) -> None:
        self._cuda.set_shared_memory_region(self._memory, [np.ascontiguousarray(array)], at)

    def read(self, at: int, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        return np.array(self._cuda.get_contents_as_numpy(self._memory, np.dtype(dtype), tuple(shape), at))

    async def register(self, client: Any, name: str) -> None:
        handle = self._cuda.get_raw_handle(self._memory)
        await client.register_cuda_shared_memory(name, handle, 0, self._size, client_timeout=_CONTROL_SECONDS)

    async def unregister(self, client: Any, name: str) -> None:
        await client.unregister_cuda_shared_memory(name, client_timeout=_CONTROL_SECONDS)

    def close(self) -> None:
        self._cuda.destroy_shared_memory_region(self._memory)


KINDS: Mapping[SharedMemoryKind, Callable[[int], Memory] | None] = {
    "off": None,
    "system": SystemMemory,
    "cuda": CudaMemory,
}
"""What makes memory of each kind."""


@dataclass(kw_only=True, eq=False)
class Region:
    """Memory that one call at a time has: its inputs first, then its outputs."""

    name: str
    """Triton's name of it."""
    size: int
    """In bytes."""
    memory: Memory
    """Where it is."""
    _places: dict[str, int] = field(default_factory=dict)
    """Where the outputs of the present call go."""

    def put(
        self, inputs: Tensors, outputs: Sequence[TensorSpec], rows: int
    ) -> tuple[list[triton.InferInput], list[triton.InferRequestedOutput]]:
        """Writes the inputs; returns what tells Triton where they are and the outputs go."""
        at = 0
        given, wanted = [], []
        for name, array in inputs.items():
            self.memory.write(at, array)
            tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            given.append(tensor.set_shared_memory(self.name, array.nbytes, at))
            at += _aligned(array.nbytes)
        self._places = {}
        for spec in outputs:
            output = triton.InferRequestedOutput(spec.name)
            size = _size(spec, rows)
            if size:  # what is of any size comes in the answer
                output.set_shared_memory(self.name, size, at)
                self._places[spec.name] = at
                at += _aligned(size)
            wanted.append(output)
        return given, wanted

    def read(self, answer: triton.InferResult, outputs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
        """The outputs of a call, copied, so that the next one can have the region."""
        found = {}
        for spec in outputs:
            if spec.name in self._places:
                shape = answer.get_output(spec.name).shape
                found[spec.name] = self.memory.read(self._places[spec.name], spec.dtype, shape)
            else:
                found[spec.name] = answer.as_numpy(spec.name)
        return found


class Regions:
    """The regions that one Triton knows: as many as it has calls at a time, all of one size."""

    def __init__(self, kind: SharedMemoryKind, address: str) -> None:
        self._make = KINDS[kind]
        self._refused = False
        self._kind = kind
        self._address = address
        self._size = _LEAST_BYTES
        self._free: list[Region] = []

    @property
    def used(self) -> bool:
        """Whether tensors are shared."""
        return self._make is not None and not self._refused

    async def take(
        self, client: Any, inputs: Tensors, outputs: Sequence[TensorSpec], rows: int
    ) -> Region | None:
        """A region with room for a call; None where tensors are not shared, or not worth it."""
        if not self.used:
            return None
        needed = sum(_aligned(array.nbytes) for array in inputs.values())
        needed += sum(_aligned(_size(spec, rows)) for spec in outputs)
        if needed < _WORTH_SHARING:
            return None
        if needed > self._size:
            self._size = 1 << (needed - 1).bit_length()
            await self._let_go(client)
        return self._free.pop() if self._free else await self._another(client)

    def give_back(self, region: Region) -> None:
        """Keeps a region for the next call; its own has ended."""
        if region.size == self._size and self.used:
            self._free.append(region)
        else:
            region.memory.close()

    def refuse(self, why: str) -> None:
        """Shares no more while this server runs."""
        if self.used:
            log.warning(
                "Triton at %s shares no %s memory, tensors go in messages: %s (it must be on this host, and "
                "newer ones want --allow-client-shm=true)",
                self._address,
                self._kind,
                why,
            )
        self._refused = True
        self._drop()

    def forget(self) -> None:
        """The server has gone, and what it knew with it; the next one may share."""
        self._refused = False
        self._drop()

    async def close(self, client: Any | None) -> None:
        """Lets everything go; `client` is of the server, where there is one."""
        if client is not None:
            await self._let_go(client)
        self._drop()
        self._make = None

    async def _another(self, client: Any) -> Region | None:
        assert self._make is not None, "asked only where tensors are shared"
        name = f"atelier-{secrets.token_hex(8)}"
        try:
            memory = self._make(self._size)
        except Exception as error:  # no GPU, no cuda-python, a full /dev/shm: each raises its own
            self.refuse(str(error))
            return None
        try:
            await memory.register(client, name)
        except InferenceServerException as error:
            memory.close()
            self.refuse(error.message())
            return None
        except BaseException:
            memory.close()
            raise
        return Region(name=name, size=self._size, memory=memory)

    def _drop(self) -> None:
        while self._free:
            self._free.pop().memory.close()

    async def _let_go(self, client: Any) -> None:
        while self._free:
            region = self._free.pop()
            with suppress(InferenceServerException):
                await region.memory.unregister(client, region.name)
            region.memory.close()


def _size(spec: TensorSpec, rows: int) -> int:
    """Bytes of an output; 0 where its shape is the client's to choose."""
    if any(axis < 0 for axis in spec.shape):
        return 0
    return rows * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED

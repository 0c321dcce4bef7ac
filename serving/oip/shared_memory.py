"""Regions of the host's shared memory that clients have registered to pass tensors in.

A region is read and written through its file descriptor and never mapped: a client that makes its region
shorter gets an error, where a mapping would end the whole process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.errors import Code, ServingError, invalid, not_found
from serving.oip.messages import Place

_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is on Linux
_MOST_REGIONS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A region as its client registered it."""

    name: str
    """Name that requests give."""
    key: str
    """Name of the shared memory object, as `shm_open` takes it."""
    offset: int
    """Where the region begins in the object, in bytes."""
    byte_size: int
    """Its size in bytes."""
    memory: _Memory
    """The object."""


class _Memory:
    """An open shared memory object; it is closed when nobody reads or writes it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    @property
    def size(self) -> int:
        """Its size now."""
        return os.fstat(self.descriptor).st_size


class SharedMemory:
    """The regions of all clients; refuses everything unless the setting allows it."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Opens a region. INVALID_ARGUMENT where there is no such object, or it is smaller than that."""
        self._require_allowed()
        if not name:
            raise invalid("name", "the shared memory region has no name: give it one")
        if name in self._regions:
            raise ServingError(
                Code.ALREADY_EXISTS, f"shared memory region '{name}' already in manager", field="name"
            )
        if len(self._regions) >= _MOST_REGIONS:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"{_MOST_REGIONS} shared memory regions are registered: unregister those that are done",
            )
        memory = _open(key)
        if offset < 0 or not 0 < byte_size <= memory.size - offset:
            raise invalid(
                "byte_size",
                f"failed to register shared memory region '{name}': invalid args: '{key}' has {memory.size} "
                f"bytes, and not {byte_size} from {offset} on",
            )
        self._regions[name] = Region(name=name, key=key, offset=offset, byte_size=byte_size, memory=memory)

    def unregister(self, name: str) -> None:
        """Lets go of a region, or of all of them where the name is empty. Unknown ones are ignored."""
        self._require_allowed()
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str) -> Mapping[str, Region]:
        """The region of that name, or all where it is empty. NOT_FOUND for an unknown one."""
        self._require_allowed()
        if not name:
            return dict(sorted(self._regions.items()))
        if name not in self._regions:
            raise not_found("name", f"Unable to find system shared memory region: '{name}'")
        return {name: self._regions[name]}

    def check(self, place: Place) -> None:
        """NOT_FOUND for an unknown region, INVALID_ARGUMENT for a place that is not within it."""
        self._require_allowed()
        region = self._region(place)
        if not 0 <= place.offset < region.byte_size:
            raise invalid(
                "shared_memory_offset", f"Invalid offset for shared memory region: '{place.region}'"
            )
        if not 0 < place.byte_size <= region.byte_size - place.offset:
            raise invalid(
                "shared_memory_byte_size",
                f"Invalid offset + byte size for shared memory region: '{place.region}'",
            )

    def read(self, place: Place) -> bytes:
        """The bytes that lie there."""
        region = self._region(place)
        content = os.pread(region.memory.descriptor, place.byte_size, region.offset + place.offset)
        if len(content) < place.byte_size:
            raise _shrunk(place)
        return content

    def write(self, place: Place, content: bytes) -> None:
        """Puts bytes there."""
        region = self._region(place)
        start = region.offset + place.offset
        if region.memory.size < start + len(content):
            raise _shrunk(place)
        os.pwrite(region.memory.descriptor, content, start)

    def _region(self, place: Place) -> Region:
        region = self._regions.get(place.region)
        if region is None:
            raise not_found("shared_memory_region", f"Unable to find shared memory region: '{place.region}'")
        return region

    def _require_allowed(self) -> None:
        if not self._allowed:
            raise ServingError(
                Code.UNIMPLEMENTED,
                "shared memory is off: start the gateway with --client-shared-memory true, on a host where "
                "every client may read and write what the gateway may",
            )


def _open(key: str) -> _Memory:
    name = key.removeprefix("/")
    error = invalid("key", f"Unable to open shared memory region: '{key}'")
    if not name or name in (".", "..") or "/" in name:
        raise error
    try:
        memory = _Memory(os.open(_FOLDER / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK))
    except (OSError, ValueError):
        raise error from None
    if not stat.S_ISREG(os.fstat(memory.descriptor).st_mode):
        raise error
    return memory


def _shrunk(place: Place) -> ServingError:
    return invalid(
        "shared_memory_region",
        f"shared memory region '{place.region}' is smaller than it was when registered",
    )

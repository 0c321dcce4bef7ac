"""What a few files say, read again when they change: a broken change leaves the value as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class FilesError(ValueError):
    """Files that cannot be used: names the file, what is wrong and the remedy. Shows nothing of a secret."""


class Watched(Generic[T]):
    """The value that `read` makes of some files."""

    def __init__(self, what: str, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Reads the files for the first time. Raises `FilesError`."""
        self._what = what
        self._paths = paths
        self._read = read
        self._stamp = self._look()
        self.value = read()

    def refresh(self, *, force: bool = False) -> bool:
        """Reads the files again if they have changed; whether there is a new value.

        Where they cannot be used that is logged, once for each change, and the value stays.
        """
        stamp = self._look()
        if stamp == self._stamp and not force:
            return False
        # The stamp is of before the reading: what changes meanwhile is seen the next time.
        self._stamp = stamp
        try:
            self.value = self._read()
        except FilesError as error:
            log.error("%s: %s; those from before stay in use", self._what, error)
            return False
        log.info("%s: read again", self._what)
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """When each file was written, its size and its inode: a mounted secret changes by its links."""
        stamps: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                status = path.stat()
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                stamps.append(None)
        return tuple(stamps)


def read_bytes(path: Path, setting: str) -> bytes:
    """The bytes of a file that a setting names. Raises `FilesError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FilesError(
            f"{path} cannot be read: {error.strerror}; {setting} names a file that the gateway can read"
        ) from error

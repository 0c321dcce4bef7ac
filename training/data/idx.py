"""The idx format of MNIST: big-endian sizes, then bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import DataError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in the file, of so many dimensions."""
    content = _content(path)
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise DataError(
            f"{path} begins with 0x{content[:4].hex()}, and an idx file of unsigned bytes in {dimensions} "
            f"dimensions with 0x{bytes([0, 0, UNSIGNED_BYTE, dimensions]).hex()}: it is another file, or "
            f"damaged; get it again"
        )
    if len(content) < header:
        raise DataError(f"{path} ends within its header, after {len(content)} bytes: get it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    if len(content) != header + math.prod(shape):
        raise DataError(
            f"{path} holds {len(content) - header} bytes of data, and its header says {math.prod(shape)} "
            f"({'×'.join(map(str, shape))}): it is cut short or damaged; get it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    """All bytes of the file, unpacked."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): it is cut short or damaged; get it again"
        ) from error

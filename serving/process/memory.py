"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Returns what the C heap keeps of freed memory: glibc holds on to it, a model's weights at a time.

    Takes milliseconds, in which other threads go on; elsewhere than with glibc it does nothing.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

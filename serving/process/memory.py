"""Memory: what was freed goes back to the system, and what stays is not looked through again and again."""

from __future__ import annotations

import ctypes
import gc
import sys

_YOUNG = 20_000  # objects: some megabytes, were all of them waste


def give_back() -> None:
    """Returns what the C heap keeps of freed memory: glibc holds on to it, a model's weights at a time.

    Takes milliseconds, in which other threads go on; elsewhere than with glibc it does nothing.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def set_aside() -> None:
    """Takes what lives now out of the garbage collector's sight: modules, models, servers, which are to stay.

    Each full collection would look through all of it, for tens of milliseconds in which nobody is served.
    And what is young is looked through less often: requests leave next to nothing that refers to itself, but
    some dozens of them hold so many objects that by default it would be done 160 times a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)

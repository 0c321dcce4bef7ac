"""Work that takes long for large messages alone: in a thread for those, and at once for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_OFF_LOOP_BYTES = 65_536


async def off_loop(function: Callable[[], Result], size: int) -> Result:
    """What the function returns, called in a thread where so many bytes take long."""
    return await asyncio.to_thread(function) if size > _OFF_LOOP_BYTES else function()

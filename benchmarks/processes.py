"""Servers in processes of their own: started, waited for, and ended by their process ids."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

START_SECONDS = 120.0
_END_SECONDS = 10.0
_LINES_KEPT = 60


class ServerError(RuntimeError):
    """A server that did not start: carries the end of what it said."""


@asynccontextmanager
async def running(
    command: Sequence[str | Path],
    *,
    ready: Callable[[], Awaitable[bool]],
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The process, from when `ready` says so until the block is left. It leads a group of its own.

    Raises `ServerError` where it ends or is not ready in time.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not await ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = "\n".join(log.read().decode(errors="replace").splitlines()[-_LINES_KEPT:])
                    raise ServerError(f"{command[0]} did not become ready:\n{said}")
                await asyncio.sleep(0.1)
            yield process
        finally:
            await asyncio.to_thread(_end, process)


@contextmanager
def stopped(process_ids: Iterable[int]) -> Iterator[None]:
    """Keeps processes, and the groups that they lead, from computing until the block is left.

    Their connections stay. Those that have ended are passed over.
    """
    groups = list(process_ids)
    try:
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGSTOP)
        yield
    finally:
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGCONT)


def resident_bytes(process_id: int) -> int:
    """Memory that a process holds, itself and not its children."""
    fields = Path(f"/proc/{process_id}/statm").read_text("ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(process_id: int) -> float:
    """CPU time that a process has taken, its threads together."""
    fields = Path(f"/proc/{process_id}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and then whatever of its group is left: workers outlive some servers."""
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

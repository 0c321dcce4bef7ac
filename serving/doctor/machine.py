"""What the machine gives: memory, disk, clock, files, cores, GPUs."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from serving.doctor.findings import Finding, failure, fine, warning
from serving.process.processors import processors
from serving.settings import Settings

_DISK_LOW, _DISK_OUT = 2**30, 64 * 2**20
_FILES = 4096
_CLOCK_SECONDS = 120.0
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def disk(settings: Settings) -> Iterator[Finding]:
    """Whether there is room where the gateway writes, and where models are put."""
    places = {"repository": settings.repository, "temporary files": Path(tempfile.gettempdir())}
    if settings.accelerator == "tensorrt":
        places["engine_cache"] = _existing(settings.engine_cache.expanduser())
    for name, place in places.items():
        if not place.exists():
            continue
        free = shutil.disk_usage(place).free
        said = f"{name} ({place}): {free / 2**30:.1f} GiB free"
        if free < _DISK_OUT:
            yield failure("disk", said, "make room: models are loaded and published through the disk")
        elif free < _DISK_LOW:
            yield warning("disk", said, "make room before the next model is published")
        else:
            yield fine("disk", said)


def clock(settings: Settings) -> Iterator[Finding]:
    """Whether the clock is behind what was written already: certificates and deadlines go by it."""
    files = (path for path in settings.repository.glob("*/config.pbtxt"))
    newest = max((path.stat().st_mtime for path in files), default=0.0)
    behind = newest - time.time()
    if behind > _CLOCK_SECONDS:
        yield failure(
            "clock",
            f"the clock is {behind:.0f} s behind or more: models of {settings.repository} were written later",
            "set it (chronyc makestep, timedatectl set-ntp true)",
        )
    else:
        yield fine("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def files(_: Settings) -> Iterator[Finding]:
    """Whether enough connections can be open at a time."""
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _FILES:
        yield warning("files", f"{most} files and connections at a time", f"ulimit -n {max(_FILES, hard)}")
    else:
        yield fine("files", f"{most} files and connections at a time")


def memory(settings: Settings) -> Iterator[Finding]:
    """Whether what the settings allow to be held fits into the memory."""
    there = _memory_bytes()
    allowed = settings.max_pending_bytes + settings.cache_bytes
    said = f"{there / 2**30:.1f} GiB, of which requests and cache may take {allowed / 2**30:.1f}"
    if allowed > 0.8 * there:
        yield warning("memory", said, "lower max_pending_bytes or cache_bytes, or give more memory")
    else:
        yield fine("memory", said)


def cores(settings: Settings) -> Iterator[Finding]:
    """Whether more computes at a time than there are cores."""
    there = processors()
    taken = (settings.instances or there) * settings.threads
    said = (
        f"{there} to use, and {settings.instances or there} calls at a time with {settings.threads} threads"
    )
    if settings.device != "cuda" and settings.backend == "onnxruntime" and taken > 2 * there:
        yield warning("cores", said, "set instances to 0 and threads to 1, which measured best")
    else:
        yield fine("cores", said)


def kubernetes(settings: Settings) -> Iterator[Finding]:
    """Whether a pod that is told to end gives its Service the time to notice."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return
    if settings.drain_delay == 0:
        yield warning(
            "kubernetes",
            "drain_delay is 0: connections still come when the gateway stops, and are lost",
            "set drain_delay to 5 or more, and terminationGracePeriodSeconds above it plus shutdown_grace",
        )
    else:
        needed = settings.drain_delay + settings.shutdown_grace
        yield fine("kubernetes", f"terminationGracePeriodSeconds must be above {needed:g}")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _memory_bytes() -> int:
    """Memory of the container, else of the machine."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _CGROUP_LIMITS:
        try:
            there = min(there, int(limit.read_text("ascii")))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return there

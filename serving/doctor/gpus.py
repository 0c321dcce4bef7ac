"""The GPUs, as their driver tells of them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from serving.doctor.findings import Finding, failure, fine
from serving.settings import Settings

_LIBRARY = "libnvidia-ml.so.1"


def gpus(settings: Settings) -> Iterator[Finding]:
    """Whether there is the GPU that was asked for. Asks the driver's own library, which need not be there."""
    wanted = settings.device == "cuda" and settings.backend != "triton"
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        if wanted:
            yield failure(
                "gpu",
                f"device is cuda and there is no {_LIBRARY}: no NVIDIA driver is to be seen from here",
                "install the driver; in a container: the NVIDIA container toolkit, and in Kubernetes a limit "
                "of nvidia.com/gpu; or set device to cpu",
            )
        else:
            yield fine("gpu", "none, and none asked for")
        return
    status = library.nvmlInit_v2()
    if status != 0:
        found = f"the driver answers with error {status}"
        if wanted:
            yield failure("gpu", found, "see what nvidia-smi says; driver and library must be of one version")
        else:
            yield fine("gpu", f"{found}, and none is asked for")
        return
    try:
        count = ctypes.c_uint(0)
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if count.value == 0 and wanted:
            yield failure(
                "gpu", "the driver has no GPU for us", "give the container one; see CUDA_VISIBLE_DEVICES"
            )
        for index in range(count.value):
            yield fine("gpu", _device(library, index))
    finally:
        library.nvmlShutdown()


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _device(library: ctypes.CDLL, index: int) -> str:
    handle, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), _Memory()
    if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
        return f"GPU {index}: lost"
    library.nvmlDeviceGetName(handle, name, len(name))
    library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    free, total = memory.free / 2**30, memory.total / 2**30
    return f"GPU {index}: {name.value.decode(errors='replace')}, {free:.1f} of {total:.1f} GiB free"

"""GPUs as NVML sees them, for Prometheus.

NVML may take seconds to answer, or never answer when a GPU falls off the bus. So a thread of its own reads
every few seconds, and a scrape gets the last reading: `atelier_gpu_up` alone, and 0, when that is too old.
Without a driver there are no metrics; what a GPU or driver does not know is left out.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pynvml  # type: ignore[import-untyped] # untyped
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

log = logging.getLogger(__name__)

_MOST_XIDS = 100  # in one reading

Sample = tuple[str, tuple[str, ...], float]
"""Name of a metric, labels and value."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A metric of this collector."""

    name: str
    """As it is scraped."""
    documentation: str
    """In a sentence."""
    labels: tuple[str, ...] = ("gpu",)
    """Names of its labels; `gpu` is NVML's index."""


FAMILIES = (
    Family(name="atelier_gpu_up", documentation="1 where the GPU answers, 0 where it is lost or NVML hangs."),
    Family(
        name="atelier_gpu_info",
        documentation="What the GPU is; always 1.",
        labels=("gpu", "uuid", "name", "driver"),
    ),
    Family(
        name="atelier_gpu_utilization_ratio", documentation="Share of the time in which something computed."
    ),
    Family(
        name="atelier_gpu_memory_utilization_ratio",
        documentation="Share of the time in which memory was read or written.",
    ),
    Family(name="atelier_gpu_memory_used_bytes", documentation="Memory in use."),
    Family(name="atelier_gpu_memory_total_bytes", documentation="Memory that there is."),
    Family(name="atelier_gpu_power_watts", documentation="Power drawn."),
    Family(name="atelier_gpu_power_limit_watts", documentation="Power that the GPU may draw."),
    Family(name="atelier_gpu_energy_joules_total", documentation="Energy used since the driver was loaded."),
    Family(name="atelier_gpu_temperature_celsius", documentation="Temperature of the chip."),
    Family(
        name="atelier_gpu_clock_hertz",
        documentation="Clock of the multiprocessors (sm) and of the memory (memory).",
        labels=("gpu", "clock"),
    ),
    Family(
        name="atelier_gpu_throttled",
        documentation="1 while the clocks are held down for that reason.",
        labels=("gpu", "reason"),
    ),
    Family(
        name="atelier_gpu_ecc_errors_total",
        documentation="Memory errors since the driver was loaded, corrected and uncorrected.",
        labels=("gpu", "kind"),
    ),
    Family(
        name="atelier_gpu_xid_errors_total",
        documentation="Critical errors that the driver told of while the gateway was running, by Xid.",
        labels=("gpu", "xid"),
    ),
)
"""Every metric of this collector."""

_THROTTLING = {
    "power": pynvml.nvmlClocksThrottleReasonSwPowerCap,
    "hardware": pynvml.nvmlClocksThrottleReasonHwSlowdown,
    "thermal": pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
    "hardware_thermal": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
    "power_brake": pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    "sync_boost": pynvml.nvmlClocksThrottleReasonSyncBoost,
}
_CLOCKS = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}
_ECC = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}


@dataclass(kw_only=True)
class _Gpu:
    """One GPU."""

    index: int
    handle: Any
    identity: tuple[str, str, str]
    xids: Counter[int] = field(default_factory=Counter)
    events: Any = None
    answers: bool = True

    @property
    def label(self) -> str:
        return str(self.index)


class GpuCollector:
    """A collector of the last reading. `start` begins to read, if there is anything to be read."""

    def __init__(self, *, seconds_between: float = 5.0, seconds_to_stale: float = 30.0) -> None:
        self._seconds_between = seconds_between
        self._seconds_to_stale = seconds_to_stale
        self._samples: Sequence[Sample] = ()
        self._read_at = 0.0
        self._stop = threading.Event()
        self._first = threading.Event()

    def start(self) -> None:
        """Begins to read in a thread, which ends with the process whatever NVML does."""
        threading.Thread(target=self._run, name="nvml", daemon=True).start()

    def stop(self) -> None:
        """Tells the thread to end; does not wait for it."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Whether the first reading is there, or it is known that there is none, within so many seconds."""
        return self._first.wait(seconds)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The last reading; nothing where there is no GPU. Never waits."""
        samples = list(self._samples)
        if not samples:
            return
        if monotonic() - self._read_at > self._seconds_to_stale:
            samples = [(name, labels, 0.0) for name, labels, _ in samples if name == "atelier_gpu_up"]
        for family in FAMILIES:
            kind = CounterMetricFamily if family.name.endswith("_total") else GaugeMetricFamily
            metric = kind(family.name, family.documentation, labels=family.labels)
            for name, labels, value in samples:
                if name == family.name:
                    metric.add_metric(labels, value)
            if metric.samples:
                yield metric

    def _run(self) -> None:
        try:
            pynvml.nvmlInit()
            gpus = _find()
            while gpus and not self._stop.is_set():
                self._samples = [sample for gpu in gpus for sample in _read(gpu)]
                self._read_at = monotonic()
                self._first.set()
                self._stop.wait(self._seconds_between)
        except pynvml.NVMLError as error:
            log.info("no GPU metrics: %s", error)
        except Exception:  # what NVML gives is not worth a crash
            log.exception("GPU metrics end here")
        finally:
            self._first.set()


def _find() -> list[_Gpu]:
    driver = _text(pynvml.nvmlSystemGetDriverVersion)
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            log.error("GPU %d does not answer: %s", index, error)
            gpus.append(_Gpu(index=index, handle=None, identity=("", "", driver), answers=False))
            continue
        identity = (_text(pynvml.nvmlDeviceGetUUID, handle), _text(pynvml.nvmlDeviceGetName, handle), driver)
        gpu = _Gpu(index=index, handle=handle, identity=identity)
        _listen(gpu)
        gpus.append(gpu)
    return gpus


def _listen(gpu: _Gpu) -> None:
    """Asks the driver to tell of critical errors, where it can."""
    try:
        events = pynvml.nvmlEventSetCreate()
        pynvml.nvmlDeviceRegisterEvents(gpu.handle, pynvml.nvmlEventTypeXidCriticalError, events)
    except pynvml.NVMLError:
        return
    gpu.events = events


def _read(gpu: _Gpu) -> Iterator[Sample]:
    """Everything that one GPU says of itself."""
    label = (gpu.label,)
    used = _ask(pynvml.nvmlDeviceGetMemoryInfo, gpu.handle) if gpu.handle is not None else None
    if gpu.answers != (used is not None):
        gpu.answers = used is not None
        log.error("GPU %d %s", gpu.index, "answers again" if gpu.answers else "does not answer any more")
    yield from _xids(gpu)
    yield "atelier_gpu_info", (*label, *gpu.identity), 1.0
    yield "atelier_gpu_up", label, float(gpu.answers)
    if used is None:
        return
    yield "atelier_gpu_memory_used_bytes", label, float(used.used)
    yield "atelier_gpu_memory_total_bytes", label, float(used.total)
    for name, function, scale in _FIGURES:
        if (value := _ask(function, gpu.handle)) is not None:
            yield name, label, value * scale
    if (rates := _ask(pynvml.nvmlDeviceGetUtilizationRates, gpu.handle)) is not None:
        yield "atelier_gpu_utilization_ratio", label, rates.gpu / 100
        yield "atelier_gpu_memory_utilization_ratio", label, rates.memory / 100
    sensor = pynvml.NVML_TEMPERATURE_GPU
    if (degrees := _ask(pynvml.nvmlDeviceGetTemperature, gpu.handle, sensor)) is not None:
        yield "atelier_gpu_temperature_celsius", label, float(degrees)
    for clock, kind in _CLOCKS.items():
        if (megahertz := _ask(pynvml.nvmlDeviceGetClockInfo, gpu.handle, kind)) is not None:
            yield "atelier_gpu_clock_hertz", (gpu.label, clock), megahertz * 1e6
    if (reasons := _ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu.handle)) is not None:
        for reason, bit in _THROTTLING.items():
            yield "atelier_gpu_throttled", (gpu.label, reason), float(bool(reasons & bit))
    for error, kind in _ECC.items():
        counted = _ask(pynvml.nvmlDeviceGetTotalEccErrors, gpu.handle, kind, pynvml.NVML_VOLATILE_ECC)
        if counted is not None:
            yield "atelier_gpu_ecc_errors_total", (gpu.label, error), float(counted)


# NVML has milliwatts and millijoules.
_FIGURES: tuple[tuple[str, Callable[..., Any], float], ...] = (
    ("atelier_gpu_power_watts", pynvml.nvmlDeviceGetPowerUsage, 1e-3),
    ("atelier_gpu_power_limit_watts", pynvml.nvmlDeviceGetEnforcedPowerLimit, 1e-3),
    ("atelier_gpu_energy_joules_total", pynvml.nvmlDeviceGetTotalEnergyConsumption, 1e-3),
)


def _xids(gpu: _Gpu) -> Iterator[Sample]:
    """Counts the errors that the driver has told of since the last reading."""
    for _ in range(_MOST_XIDS if gpu.events is not None else 0):
        try:
            event = pynvml.nvmlEventSetWait_v2(gpu.events, 0)
        except pynvml.NVMLError:  # a timeout: there are no more
            break
        gpu.xids[int(event.eventData)] += 1
        log.error("GPU %d: Xid %d", gpu.index, event.eventData)
    for xid, times in gpu.xids.items():
        yield "atelier_gpu_xid_errors_total", (gpu.label, str(xid)), float(times)


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """What NVML says; None where this GPU or driver does not know."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def _text(function: Callable[..., Any], *arguments: Any) -> str:
    answer = _ask(function, *arguments)
    return "" if answer is None else str(answer)

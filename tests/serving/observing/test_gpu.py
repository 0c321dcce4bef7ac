"""GPU metrics through the real nvidia-ml-py, over a libnvidia-ml.so.1 compiled from `fake_nvml.c`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nvml
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.observing.gpu import FAMILIES

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")

Figures = dict[tuple[str, ...], float]
"""By name and values of labels."""

SCRAPE = """
import logging, sys, time
from prometheus_client import CollectorRegistry, generate_latest
from serving.observing.gpu import GpuCollector
logging.basicConfig(level="INFO")
collector, registry = GpuCollector(seconds_between=0.01, seconds_to_stale=0.2), CollectorRegistry()
registry.register(collector)
collector.start()
assert collector.wait(20)
time.sleep({patience})
sys.stdout.buffer.write(generate_latest(registry))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def scrape(driver: Path | None, profile: str, patience: float = 0.0) -> tuple[Figures, str]:
    """The figures that a process of its own gives after so many seconds, and its log."""
    environment = {**os.environ, "FAKE_NVML": profile}
    if driver is not None:
        environment["LD_LIBRARY_PATH"] = str(driver)
    command = [sys.executable, "-c", SCRAPE.format(patience=patience)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    labels = {family.name: family.labels for family in FAMILIES}
    return {
        (sample.name, *(sample.labels[label] for label in labels[sample.name])): sample.value
        for family in text_string_to_metric_families(ended.stdout)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }, ended.stderr


def test_everything_of_two_gpus_is_there_in_base_units(driver: Path):
    figures, _ = scrape(driver, "two")
    assert figures["atelier_gpu_up", "0"] == figures["atelier_gpu_up", "1"] == 1
    uuid = "GPU-00000000-0000-0000-0000-000000000000"
    assert figures["atelier_gpu_info", "0", uuid, "Fake 0", "580.65.06"] == 1
    assert figures["atelier_gpu_utilization_ratio", "0"] == 0.87
    assert figures["atelier_gpu_memory_utilization_ratio", "0"] == 0.41
    assert figures["atelier_gpu_memory_used_bytes", "1"] == 7 * 2**30
    assert figures["atelier_gpu_memory_total_bytes", "1"] == 24 * 2**30
    assert figures["atelier_gpu_power_watts", "0"] == 213.5
    assert figures["atelier_gpu_power_limit_watts", "0"] == 350
    assert figures["atelier_gpu_energy_joules_total", "0"] >= 1234.567
    assert figures["atelier_gpu_temperature_celsius", "0"] == 67
    assert figures["atelier_gpu_clock_hertz", "0", "sm"] == 1.755e9
    assert figures["atelier_gpu_clock_hertz", "0", "memory"] == 9.501e9
    assert figures["atelier_gpu_throttled", "0", "power"] == 1
    assert figures["atelier_gpu_throttled", "0", "thermal"] == 0
    assert figures["atelier_gpu_throttled", "1", "power"] == 0
    assert figures["atelier_gpu_ecc_errors_total", "0", "corrected"] == 5
    assert figures["atelier_gpu_ecc_errors_total", "0", "uncorrected"] == 0
    assert {name for name, *_ in figures} == {family.name for family in FAMILIES}


def test_critical_errors_are_counted_by_xid_and_logged(driver: Path):
    figures, log = scrape(driver, "two")
    assert figures["atelier_gpu_xid_errors_total", "0", "31"] == 1
    assert figures["atelier_gpu_xid_errors_total", "0", "79"] == 1
    assert "GPU 0: Xid 79" in log


def test_a_gpu_without_ecc_has_no_figures_of_it(driver: Path):
    figures, _ = scrape(driver, "two")
    assert ("atelier_gpu_ecc_errors_total", "1", "corrected") not in figures


def test_a_lost_gpu_is_marked_and_the_other_goes_on(driver: Path):
    figures, log = scrape(driver, "lost", patience=0.3)
    assert figures["atelier_gpu_up", "1"] == 0
    assert ("atelier_gpu_power_watts", "1") not in figures
    assert figures["atelier_gpu_up", "0"] == 1
    assert figures["atelier_gpu_power_watts", "0"] == 213.5
    assert log.count("GPU 1 does not answer any more") == 1


def test_a_driver_that_hangs_holds_no_scrape_up_and_old_figures_are_not_given_out(driver: Path):
    figures, _ = scrape(driver, "hang", patience=0.5)
    assert figures == {("atelier_gpu_up", "0"): 0}


def test_a_driver_without_a_function_lacks_that_figure_alone(tmp_path: Path):
    figures, _ = scrape(nvml.build(tmp_path, "-DWITHOUT_ENERGY"), "two")
    assert ("atelier_gpu_energy_joules_total", "0") not in figures
    assert figures["atelier_gpu_power_watts", "0"] == 213.5


def test_without_gpus_there_are_no_metrics(driver: Path):
    assert scrape(driver, "none")[0] == {}


def test_without_a_driver_there_are_no_metrics_and_the_log_says_why():
    figures, log = scrape(None, "two")
    assert figures == {}
    assert "no GPU metrics: NVML Shared Library Not Found" in log


def test_a_library_that_is_none_is_as_good_as_no_driver(tmp_path: Path):
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    assert scrape(tmp_path, "two")[0] == {}

"""What the gateway counts."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nvml
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from serving.client.gateway import free_ports
from serving.errors import ServingError
from serving.observing.metrics import Metrics
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext

GENERATE = {"method": "GenerateImages", "task": "generate"}


def series(registry: CollectorRegistry, label: str) -> set[str]:
    """Every value that a label has in any series of requests, models and graphs."""
    families = [family for family in registry.collect() if family.name != "atelier_build"]
    samples = [sample.labels for family in families for sample in family.samples]
    return {labels[label] for labels in samples if label in labels}


async def older_versions(registry: CollectorRegistry) -> None:
    """Waits for them: the gateway is ready when the newest are there."""
    ready = {"model": "tiny_gan", "graph": "tiny_gan", "version": "1"}
    async with asyncio.timeout(20):
        while not registry.get_sample_value("atelier_graph_ready", ready):
            await asyncio.sleep(0.01)


async def test_requests_count_by_task_model_version_and_code(open_tiny: Any):
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        await older_versions(registry)
        for version in (0, 1):
            asked = pb.GenerateImagesRequest(model="tiny_gan", class_id=0, version=version)
            await service.generate_images(asked, RequestContext())
        with pytest.raises(ServingError):
            await service.generate_images(pb.GenerateImagesRequest(model="x" * 99), RequestContext())
        wrong = pb.GenerateImagesRequest(model="tiny_gan", class_id=99)
        with pytest.raises(ServingError):
            await service.generate_images(wrong, RequestContext())

    def counted(**labels: str) -> float | None:
        return registry.get_sample_value("atelier_requests_total", {**GENERATE, **labels})

    assert counted(model="tiny_gan", version="1", code="OK") == 1
    assert counted(model="tiny_gan", version="2", code="OK") == 1
    assert counted(model="tiny_gan", version="2", code="INVALID_ARGUMENT") == 1
    assert counted(model="unknown", version="", code="NOT_FOUND", task="") == 1
    latencies = {"method": "GenerateImages", "model": "tiny_gan", "version": "2"}
    assert registry.get_sample_value("atelier_request_seconds_count", latencies) == 1
    assert "x" * 99 not in series(registry, "model")


async def test_what_is_loaded_and_allowed_for_can_be_read(open_tiny: Any):
    registry = CollectorRegistry()
    async with open_tiny(registry, max_pending_rows=77, max_pending_bytes=2**20):
        await older_versions(registry)
        ready = {"model": "tiny_gan", "graph": "tiny_gan", "version": "2"}
        assert registry.get_sample_value("atelier_graph_ready", ready) == 1
        assert registry.get_sample_value("atelier_graph_instances", {"graph": "tiny_gan"}) == 2
        assert registry.get_sample_value("atelier_slots") == 2
        assert registry.get_sample_value("atelier_ready") == 1
        assert registry.get_sample_value("atelier_rows_limit") == 77
        assert registry.get_sample_value("atelier_bytes_limit") == 2**20
        loads = {"graph": "tiny_gan", "outcome": "loaded"}
        assert registry.get_sample_value("atelier_loads_total", loads) == 2
        assert registry.get_sample_value("atelier_load_seconds_count", {"graph": "tiny_gan"}) == 2


async def test_a_graph_that_does_not_load_is_counted_and_not_ready(
    tiny_repository: Path, tmp_path: Path, open_tiny: Any
):
    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository)
    (repository / "tiny_gan/2/model.onnx").write_bytes(b"changed")
    registry = CollectorRegistry()
    async with open_tiny(registry, repository=repository):
        loads = {"graph": "tiny_gan", "outcome": "refused"}
        assert registry.get_sample_value("atelier_loads_total", loads) == 1
        assert registry.get_sample_value("atelier_refused", {"name": "tiny_gan/2"}) == 1
        ready = {"model": "tiny_gan", "graph": "tiny_gan", "version": "2"}
        assert registry.get_sample_value("atelier_graph_ready", ready) == 0


async def test_steps_padding_and_pictures_are_counted(open_tiny: Any):
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        asked = pb.GenerateImagesRequest(
            model="tiny_gaussian", steps=7, sampler="ddim", format=pb.IMAGE_FORMAT_WEBP
        )
        await service.generate_images(asked, RequestContext())
    graph = {"graph": "tiny_gaussian"}
    assert registry.get_sample_value("atelier_steps_total", graph) == 7
    assert registry.get_sample_value("atelier_queue_seconds_count", graph) == 7
    assert registry.get_sample_value("atelier_rows_total", graph) == 7
    assert registry.get_sample_value("atelier_rows_padded_total", graph) == 0
    assert registry.get_sample_value("atelier_encode_seconds_count", {"format": "webp"}) == 1


async def test_a_loop_that_is_held_up_shows(open_tiny: Any):
    registry = CollectorRegistry()
    async with open_tiny(registry):
        before = registry.get_sample_value("atelier_event_loop_lag_seconds_sum") or 0.0
        await asyncio.sleep(0.01)
        time.sleep(0.6)  # noqa: ASYNC251 - this is what is to be noticed
        await asyncio.sleep(0.01)
        after = registry.get_sample_value("atelier_event_loop_lag_seconds_sum") or 0.0
    assert after - before > 0.3


def answer(metrics: Metrics, model: str, version: int) -> None:
    metrics.answered(
        method="GenerateImages",
        task="generate",
        model=model,
        version=str(version),
        code="OK",
        seconds=1.0,
        exemplar=None,
    )


def use(metrics: Metrics, model: str, version: int) -> None:
    """Loads, asks and computes."""
    metrics.serve(model, {1, 2})
    with metrics.loading(model):
        pass
    answer(metrics, model, version)
    metrics.graph(model).rows.inc(3)
    metrics.shared.labels(model).inc()


def test_the_series_of_a_version_that_is_gone_go_with_it():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    use(metrics, "cats", 1)
    use(metrics, "cats", 2)
    metrics.serve("cats", {2, 3})
    assert series(registry, "version") == {"2"}
    answer(metrics, "cats", 1)
    assert series(registry, "version") == {"2", ""}, "a late answer brings no series back"
    assert registry.get_sample_value("atelier_rows_total", {"graph": "cats"}) == 6


def test_the_series_of_a_model_that_is_gone_go_with_it_and_come_back_from_zero():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    use(metrics, "cats", 1)
    use(metrics, "dogs", 1)
    late = metrics.graph("cats")
    metrics.forget_model("cats")
    metrics.forget_graph("cats")
    late.rows.inc(5)
    metrics.graph("cats").rows.inc(5)
    answer(metrics, "cats", 1)
    assert series(registry, "graph") == {"dogs"}
    assert series(registry, "model") == {"dogs", "unknown"}
    use(metrics, "cats", 1)
    assert registry.get_sample_value("atelier_rows_total", {"graph": "cats"}) == 3


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_command_gives_out_process_gpus_and_build_in_openmetrics(tiny_repository: Path, tmp_path: Path):
    port, http, grpc = free_ports(3)
    flags = ["--metrics-port", str(port), "--http-port", str(http), "--grpc-port", str(grpc)]
    command = [sys.executable, "-m", "atelier", "serve", "--repository", str(tiny_repository), *flags]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml.build(tmp_path)), "FAKE_NVML": "hang"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready"):
                break
        asked = Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urlopen(asked, timeout=30) as answer:
            families = {
                family.name: family for family in text_string_to_metric_families(answer.read().decode())
            }
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, "a driver that hangs does not keep the gateway from stopping"
    assert {
        "process_resident_memory_bytes",
        "atelier_gpu_up",
        "atelier_event_loop_lag_seconds",
    } <= families.keys()
    (build_info,) = families["atelier_build"].samples
    assert build_info.labels["version"]
    names = {sample.name for family in families.values() for sample in family.samples}
    assert not [name for name in names if name.endswith("_created")]

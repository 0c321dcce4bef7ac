"""Atelier: `atelier serve` in a process of its own, asked over gRPC."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.http_client import HttpClient
from benchmarks.mixes import Ask
from benchmarks.peers.environments import SOURCE_TREE
from benchmarks.peers.pixels_over_http import outcome
from benchmarks.processes import running
from serving.client.gateway import free_ports
from serving.pb import image_generation_pb2 as pb
from serving.pb.image_generation_pb2_grpc import ImageGenerationStub

CALIBRATED_AFTER = 6.0
"""Seconds in which a gateway that has started, and that nobody asks, measures what batches cost."""

OUTCOMES: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: "refused",
    grpc.StatusCode.DEADLINE_EXCEEDED: "late",
}
"""What becomes of a request by its status; "failed" for any other."""


class Atelier:
    """A gateway that is running."""

    def __init__(self, channel: grpc.aio.Channel, http_port: int, metrics_port: int, process_id: int) -> None:
        self.channel = channel
        self.http_port = http_port
        self._stub: Any = ImageGenerationStub(channel)  # type: ignore[no-untyped-call] # generated
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self.process_id = process_id

    async def send(self, ask: Ask) -> str:
        """Asks for raw pixels, and looks at whether all images came."""
        try:
            answer = await self._stub.GenerateImages(message(ask), timeout=ask.timeout)
        except grpc.aio.AioRpcError as error:
            return OUTCOMES.get(error.code(), "failed")
        return "ok" if len(answer.images) == ask.count else "failed"

    async def pixels(self, ask: Ask) -> list[bytes]:
        """Raw pixels of each image."""
        answer = await self._stub.GenerateImages(message(ask), timeout=ask.timeout)
        return [image.data for image in answer.images]

    def metrics_page(self) -> str:
        """/metrics as Prometheus gets it."""
        with urlopen(self.metrics_url, timeout=10) as answer:
            return str(answer.read().decode())

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample of /metrics by its name and labels."""
        text = self.metrics_page()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


class AtelierOverHttp:
    """The same gateway asked over HTTP, in JSON."""

    def __init__(self, client: HttpClient, process_id: int) -> None:
        self._client = client
        self.process_id: int | None = process_id

    async def send(self, ask: Ask) -> str:
        """Asks for raw pixels."""
        path = f"/v1/models/{ask.model}:generate"
        return await outcome(self._client, path, json_body(ask), ask.timeout)


def message(ask: Ask) -> pb.GenerateImagesRequest:
    """The request as Atelier's proto has it."""
    request = pb.GenerateImagesRequest(
        model=ask.model,
        count=ask.count,
        seed=ask.seed,
        class_id=ask.class_id,
        format=pb.IMAGE_FORMAT_RAW_U8,
    )
    if ask.steps:
        request.steps = ask.steps
        request.sampler = ask.sampler
        request.guidance_scale = ask.guidance_scale
    return request


def json_body(ask: Ask) -> bytes:
    """The same request as JSON, without the model, which HTTP has in the path."""
    fields = MessageToDict(message(ask))
    del fields["model"]
    return json.dumps(fields).encode()


@asynccontextmanager
async def serve(
    repository: Path, *flags: str, module: str = "atelier", environment: Mapping[str, str] | None = None
) -> AsyncIterator[Atelier]:
    """A ready gateway on free ports of the loopback; `flags` are those of `atelier serve`."""
    http, grpc_port, metrics = free_ports(3)
    command = [sys.executable, "-m", module, "serve", "--repository", str(repository)]
    command += ["--host", "127.0.0.1", "--http-port", str(http), "--grpc-port", str(grpc_port)]
    command += ["--metrics-port", str(metrics), "--log-level", "error", *flags]

    async def ready() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{http}/readyz", timeout=5):
                return True
        except (URLError, OSError):
            return False

    path = os.pathsep.join([str(SOURCE_TREE), os.environ.get("PYTHONPATH", "")])
    async with (
        running(command, ready=ready, environment={"PYTHONPATH": path, **(environment or {})}) as process,
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
    ):
        yield Atelier(channel, http, metrics, process.pid)


def batch_rows(
    metrics: Mapping[tuple[str, tuple[tuple[str, str], ...]], float], graph: str
) -> dict[str, float]:
    """Batches by their number of rows, up to each bound of the histogram and above the one before."""
    found = {
        dict(labels)["le"]: value
        for (name, labels), value in metrics.items()
        if name == "atelier_batch_rows_bucket" and dict(labels)["graph"] == graph
    }
    counts: dict[str, float] = {}
    below = 0.0
    for bound in sorted(found, key=float):
        counts[bound] = found[bound] - below
        below = found[bound]
    return counts

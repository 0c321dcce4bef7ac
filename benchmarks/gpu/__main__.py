"""`python -m benchmarks.gpu`: rows per second on a GPU, by size of batch and by way of computing them.

    python -m benchmarks.gpu --repository model_repository --graph shapes_unet

Two tables: one graph called in a loop as the embedded engine calls it, by size of batch and by way (the CPU,
CUDA with and without graphs, TF32, float16, TensorRT); and the gateway by number of clients, beside the best
of that loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.raw import inputs
from export.precision import to_float16
from export.publish import Candidate, publish
from export.speed import buckets
from serving.backends.onnxruntime import OnnxRuntimeBackend
from serving.backends.providers import CUDA
from serving.catalog import build, scan
from serving.client import Client
from serving.client.gateway import gateway
from serving.errors import ServingError
from serving.manifest import Manifest

TURNS = 5
"""Turns of every measurement, of which the median counts."""
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
"""Clients that ask the gateway at a time."""
IMAGES = 4
"""Images of a request."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of computing rows."""

    name: str
    """As the table calls it."""
    options: Mapping[str, Any]
    """Of the embedded engine."""
    float16: bool = False
    """Whether the graph is converted to float16 first."""


WAYS = (
    Way(name="CPU", options={"device": "cpu"}),
    Way(name="CUDA", options={"device": "cuda", "cuda_graphs": False}),
    Way(name="CUDA, graphs", options={"device": "cuda"}),
    Way(name="CUDA, graphs, TF32", options={"device": "cuda", "tf32": True}),
    Way(name="CUDA, graphs, float16", options={"device": "cuda"}, float16=True),
    Way(name="TensorRT", options={"device": "cuda", "accelerator": "tensorrt"}),
    Way(name="TensorRT, float16", options={"device": "cuda", "accelerator": "tensorrt"}, float16=True),
)


def main(arguments: list[str]) -> int:
    """Measure and print; 1 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--graph", default="shapes_unet", help="a denoiser (default: shapes_unet)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (default: 1)")
    given = parser.parse_args(arguments)
    console = Console()
    if CUDA not in onnxruntime.get_available_providers():
        print(
            "python -m benchmarks.gpu: this onnxruntime is built without CUDA: install onnxruntime-gpu in "
            "place of onnxruntime, on a machine with an NVIDIA GPU",
            file=sys.stderr,
        )
        return 1
    manifest = build(scan(given.repository)).manifests[given.graph]
    console.print(f"onnxruntime {onnxruntime.__version__}, {given.graph}, rows per second")
    rates = {way.name: asyncio.run(_loop(way, given.repository, manifest, given.seconds)) for way in WAYS}
    console.print(_by_batch(rates))
    best = max(rates["CUDA, graphs"].values(), default=0.0)
    console.print(_by_clients(manifest, given.repository, given.seconds, best))
    return 0


async def _loop(way: Way, repository: Path, manifest: Manifest, seconds: float) -> dict[int, float]:
    """Rows per second by size of batch; nothing where that way is not to be had."""
    with _repository(way, repository, manifest) as folder, tempfile.TemporaryDirectory() as engines:
        version = 1 if way.float16 else max(manifest.versions)
        backend = OnnxRuntimeBackend(
            repository=folder, instances=1, threads=1, engine_cache=Path(engines), **way.options
        )
        try:
            await backend.load(manifest.graph, version)
        except ServingError as error:
            print(f"{way.name}: {error.message}", file=sys.stderr)
            return {}
        rates = {}
        for rows in buckets(1, manifest.max_batch_size):
            batch = inputs(manifest, rows)
            for _ in range(4):  # the third call is recorded
                await backend.infer(manifest.graph, version, batch)
            turns = [
                await _turn(backend, manifest.graph, version, batch, rows, seconds) for _ in range(TURNS)
            ]
            rates[rows] = median(turns)
        await backend.close()
        return rates


async def _turn(
    backend: OnnxRuntimeBackend,
    graph: str,
    version: int,
    batch: Mapping[str, NDArray[Any]],
    rows: int,
    seconds: float,
) -> float:
    done, began = 0, perf_counter()
    while (taken := perf_counter() - began) < seconds / TURNS:
        await backend.infer(graph, version, batch)
        done += rows
    return done / taken


@contextlib.contextmanager
def _repository(way: Way, repository: Path, manifest: Manifest) -> Iterator[Path]:
    """The repository, or one with the graph in float16 as its first version."""
    if not way.float16:
        yield repository
        return
    version = max(manifest.versions)
    model = to_float16((repository / manifest.graph / str(version) / "model.onnx").read_bytes())
    record = dataclasses.replace(
        manifest.versions[version],
        sha256=hashlib.sha256(model).hexdigest(),
        precision="float16",
        probe=None,
    )
    alone = dataclasses.replace(manifest, versions={})
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "repository"
        publish(target, [Candidate(manifest=alone, record=record, model=model)], 1)
        yield target


def _by_batch(rates: Mapping[str, Mapping[int, float]]) -> Table:
    table = Table(title="One graph in a loop")
    table.add_column("rows of a call", justify="right")
    for name in rates:
        table.add_column(name, justify="right")
    for rows in sorted({rows for each in rates.values() for rows in each}):
        table.add_row(str(rows), *(f"{each[rows]:,.0f}" if rows in each else "" for each in rates.values()))
    return table


def _by_clients(manifest: Manifest, repository: Path, seconds: float, best: float) -> Table:
    """The gateway's rows per second by number of clients, and their share of the loop's best."""
    assert manifest.sampling is not None, "--graph names a denoiser"
    guided = 2 if manifest.sampling.guidance_scale != 1 and manifest.class_labels else 1
    rows_a_request = IMAGES * manifest.sampling.steps * guided
    table = Table(title=f"The gateway, requests of {IMAGES} images")
    for column in ("clients", "images/s", "rows/s", "of the loop's best"):
        table.add_column(column, justify="right")
    os.environ["ATELIER_DEVICE"] = "cuda"
    with gateway(repository) as running, Client(running.grpc_address) as client:
        client.generate(manifest.model, count=IMAGES, seed=0)

        def ask(until: float) -> int:
            asked = 0
            while perf_counter() < until:
                client.generate(manifest.model, count=IMAGES)
                asked += 1
            return asked

        for clients in CLIENTS:
            with ThreadPoolExecutor(clients) as pool:
                began = perf_counter()
                asked = sum(pool.map(ask, [began + TURNS * seconds] * clients))
                rate = asked / (perf_counter() - began)
            rows = rate * rows_a_request
            share = f"{rows / best:.2f}" if best else ""
            table.add_row(str(clients), f"{rate * IMAGES:,.0f}", f"{rows:,.0f}", share)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

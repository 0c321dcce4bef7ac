"""LitServe: an API of its own, asked over HTTP; workers and its batching."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http_client import HttpClient
from benchmarks.peers import Setting
from benchmarks.peers.environments import SOURCE_TREE, environment
from benchmarks.peers.pixels_over_http import PixelsOverHttp
from benchmarks.processes import running
from serving.client.gateway import free_ports


@dataclass(frozen=True)
class LitServe:
    """LitServe 0.2."""

    settings: tuple[Setting, ...] = (
        Setting(workers=2),
        Setting(workers=2, batch=8, wait=0.005),
    )

    @asynccontextmanager
    async def serve(self, repository: Path, model: str, setting: Setting) -> AsyncIterator[PixelsOverHttp]:
        """LitServe with the model, until the block is left."""
        folder = environment("litserve", ["litserve==0.2.19"])
        (port,) = free_ports(1)
        app = SOURCE_TREE / "benchmarks" / "peers" / "assets" / "litserve_app.py"
        variables = {
            "PYTHONPATH": str(SOURCE_TREE),
            "OMP_NUM_THREADS": "1",
            "BENCH_REPOSITORY": str(repository.resolve()),
            "BENCH_MODEL": model,
            "BENCH_THREADS": str(setting.threads),
            "BENCH_WORKERS": str(setting.workers),
            "BENCH_BATCH": str(setting.batch),
            "BENCH_WAIT": str(setting.wait),
        }
        async with HttpClient(port) as client:
            server = PixelsOverHttp(client, "/predict", "/health")
            command: list[str | Path] = [folder / "bin" / "python", app, str(port)]
            async with running(command, ready=server.ready, environment=variables) as process:
                server.process_id = process.pid  # with its batching on its workers poll
                yield server


LITSERVE = LitServe()

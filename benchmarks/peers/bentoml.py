"""BentoML: a service of its own, asked over HTTP; workers and its adaptive batching."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http_client import HttpClient
from benchmarks.peers import Setting
from benchmarks.peers.environments import ENVIRONMENTS, SOURCE_TREE, environment
from benchmarks.peers.pixels_over_http import PixelsOverHttp
from benchmarks.processes import running
from serving.client.gateway import free_ports

# How long the batcher lets a request wait at most before it gives it up: longer than any takes here.
_LATENCY = "120"


@dataclass(frozen=True)
class BentoML:
    """BentoML 1.4."""

    settings: tuple[Setting, ...] = (
        Setting(workers=2),
        Setting(workers=2, batch=8),
    )

    @asynccontextmanager
    async def serve(self, repository: Path, model: str, setting: Setting) -> AsyncIterator[PixelsOverHttp]:
        """BentoML with the model, until the block is left."""
        folder = environment("bentoml", ["bentoml==1.4.30"])
        (port,) = free_ports(1)
        variables = {
            "PYTHONPATH": str(SOURCE_TREE),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "BENTOML_HOME": str(ENVIRONMENTS / "bentoml" / "home"),
            "BENTOML_DO_NOT_TRACK": "1",
            "BENCH_REPOSITORY": str(repository.resolve()),
            "BENCH_MODEL": model,
            "BENCH_THREADS": str(setting.threads),
            "BENCH_WORKERS": str(setting.workers),
            "BENCH_BATCH": str(setting.batch),
            "BENCH_LATENCY": _LATENCY,
        }
        async with HttpClient(port) as client:
            server = PixelsOverHttp(client, "/many", "/readyz", lambda fields: {"requests": [fields]})
            command: list[str | Path] = [
                folder / "bin" / "bentoml",
                "serve",
                "benchmarks.peers.assets.bentoml_app:WholeService",
            ]
            command += ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(SOURCE_TREE)]
            async with running(command, ready=server.ready, environment=variables):
                yield server


BENTOML = BentoML()

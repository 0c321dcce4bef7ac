"""MLServer: a custom runtime, asked over gRPC; parallel workers and its adaptive batching."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from benchmarks.peers import Setting
from benchmarks.peers.environments import SOURCE_TREE, environment
from benchmarks.peers.inference import Inference
from benchmarks.processes import running
from serving.client.gateway import free_ports


@dataclass(frozen=True)
class MLServer:
    """MLServer 1.7."""

    settings: tuple[Setting, ...] = (
        Setting(workers=2),
        Setting(workers=2, batch=8, wait=0.005),
    )

    @asynccontextmanager
    async def serve(self, repository: Path, model: str, setting: Setting) -> AsyncIterator[Inference]:
        """MLServer with the model, until the block is left."""
        folder = environment("mlserver", ["mlserver==1.7.1", "uvloop<0.22"])
        http, grpc_port, metrics = free_ports(3)
        with tempfile.TemporaryDirectory() as root:
            settings = {
                "host": "127.0.0.1",
                "http_port": http,
                "grpc_port": grpc_port,
                "metrics_port": metrics,
                "parallel_workers": setting.workers,
                "debug": False,
            }
            served: dict[str, str | float] = {
                "name": model,
                "implementation": "benchmarks.peers.assets.mlserver_model.WholeModel",
            }
            if setting.batch > 1:
                served |= {"max_batch_size": setting.batch, "max_batch_time": setting.wait}
            Path(root, "settings.json").write_text(json.dumps(settings), "utf-8")
            Path(root, "model-settings.json").write_text(json.dumps(served), "utf-8")
            variables = {
                "PYTHONPATH": str(SOURCE_TREE),
                "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "BENCH_REPOSITORY": str(repository.resolve()),
                "BENCH_MODEL": model,
                "BENCH_THREADS": str(setting.threads),
            }
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                client = Inference(channel, model)
                command: list[str | Path] = [folder / "bin" / "mlserver", "start", root]
                async with running(command, ready=client.ready, environment=variables, directory=Path(root)):
                    yield client


MLSERVER = MLServer()

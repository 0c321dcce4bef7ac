"""Real Triton: the server of the pytriton wheel, asked over gRPC.

A diffusion model is a model of the Python backend that samples whole requests. A model of one pass is the
graph of the repository as it stands, its latents drawn by the client before the clock starts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
from numpy.typing import NDArray

from benchmarks.mixes import Ask
from benchmarks.peers import Setting
from benchmarks.peers.environments import ENVIRONMENTS, SOURCE_TREE, environment
from benchmarks.peers.inference import Inference
from benchmarks.processes import running
from serving.catalog import PublicModel, build, scan
from serving.client.gateway import free_ports
from serving.manifest import Manifest, to_config
from serving.noise import Stream, normal

_WHEEL = "nvidia-pytriton==0.7.0"
_LATENTS = 512

_WHOLE = """\
name: "whole" backend: "python" max_batch_size: {most}
input {{ name: "rows" data_type: TYPE_FP64 dims: 5 }}
output {{ name: "images" data_type: TYPE_UINT8 dims: [-1, -1, -1] }}
instance_group {{ count: {count} kind: KIND_CPU }}
"""


class Drawn:
    """A graph of one pass, whose latents the client has drawn before it asks."""

    def __init__(self, client: Inference, manifest: Manifest) -> None:
        self._client = client
        self._manifest = manifest
        self._latents: dict[tuple[int, int], Mapping[str, NDArray[Any]]] = {}

    async def send(self, ask: Ask) -> str:
        """Sends the tensors of a request."""
        key = (ask.seed % _LATENTS, ask.count)
        if key not in self._latents:
            self._latents[key] = self._tensors(*key, ask.class_id)
        return await self._client.send_tensors(self._latents[key], ask)

    def _tensors(self, seed: int, count: int, class_id: int) -> Mapping[str, NDArray[Any]]:
        streams = {"latent": Stream.PRIOR, "noise": Stream.DECODER}
        return {
            spec.name: normal(seed, count, spec.shape, streams[spec.name])
            if spec.name in streams
            else np.full((count, *spec.shape), class_id, np.int64)
            for spec in self._manifest.inputs
        }


@dataclass(frozen=True)
class Triton:
    """Triton 2.51 (24.10)."""

    settings: tuple[Setting, ...] = (
        Setting(workers=2),
        Setting(workers=2, batch=16, wait=0.0),
    )

    @asynccontextmanager
    async def serve(self, repository: Path, model: str, setting: Setting) -> AsyncIterator[Inference | Drawn]:
        """Triton with the model, until the block is left."""
        folder, server = _installed()
        http, grpc_port = free_ports(2)
        public = build(scan(repository)).models[model]
        with tempfile.TemporaryDirectory() as root:
            name = _lay_out(Path(root), repository, public, setting)
            variables = {
                "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
                "BENCH_SOURCE_TREE": str(SOURCE_TREE),
                "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
                "OMP_NUM_THREADS": "1",
                "BENCH_REPOSITORY": str(repository.resolve()),
                "BENCH_MODEL": model,
                "BENCH_THREADS": str(setting.threads),
            }
            command: list[str | Path] = [
                *("env", "-i", *(f"{key}={value}" for key, value in variables.items())),
                *(server / "bin" / "tritonserver", f"--model-repository={root}"),
                *(f"--backend-directory={server / 'backends'}", f"--cache-directory={server / 'caches'}"),
                *("--http-address=127.0.0.1", f"--http-port={http}"),
                *("--grpc-address=127.0.0.1", f"--grpc-port={grpc_port}"),
                *("--allow-metrics=false", "--exit-timeout-secs=5"),
            ]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                client = Inference(channel, name)
                async with running(command, ready=client.ready, directory=Path(root)):
                    yield Drawn(client, public.drawn) if not public.denoiser and public.drawn else client


def _lay_out(root: Path, repository: Path, public: PublicModel, setting: Setting) -> str:
    """Writes Triton's model repository and returns the name of the model in it."""
    batching = ""
    if setting.batch > 1:
        delay = f" max_queue_delay_microseconds: {int(1e6 * setting.wait)}"
        batching = f"dynamic_batching {{{delay} }}\n"
    assets = SOURCE_TREE / "benchmarks" / "peers" / "assets"
    if public.denoiser or not public.drawn:
        (root / "whole" / "1").mkdir(parents=True)
        shutil.copy(assets / "triton_whole.py", root / "whole" / "1" / "model.py")
        text = _WHOLE.format(most=max(16, setting.batch), count=setting.workers) + batching
        (root / "whole" / "config.pbtxt").write_text(text, "utf-8")
        return "whole"
    graph = public.drawn.graph
    shutil.copytree(repository / graph, root / graph)
    config = to_config(public.drawn)
    config.instance_group.add(count=setting.workers, kind=2)  # KIND_CPU
    if setting.batch == 1:
        config.ClearField("dynamic_batching")
    (root / graph / "config.pbtxt").write_text(str(config), "utf-8")
    return graph


@cache
def _installed() -> tuple[Path, Path]:
    """The environment of the Python models, and the folder of the server."""
    # numpy 2 makes the tensors of this release's Python backend zeros, without a word.
    folder = environment("triton", ["numpy<2"])
    target = ENVIRONMENTS / "triton" / "server"
    server = target / "pytriton" / "tritonserver"
    if not server.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--target", target, _WHEEL], check=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, server / "backends" / "python" / stub.name)
    (server / "backends" / "onnxruntime").mkdir(exist_ok=True)
    asset = SOURCE_TREE / "benchmarks" / "peers" / "assets" / "triton_onnxruntime.py"
    shutil.copy(asset, server / "backends" / "onnxruntime" / "model.py")
    os.chmod(server / "bin" / "tritonserver", 0o755)
    return folder, server


TRITON = Triton()

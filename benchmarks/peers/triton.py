"""Real Triton: the server of the pytriton wheel, asked over gRPC.

A diffusion model is a model of the Python backend that samples whole requests. A model of one pass is the
graph of the repository as it stands, its latents drawn by the client before the clock starts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
from numpy.typing import NDArray

from benchmarks.mixes import Ask
from benchmarks.peers import Setting
from benchmarks.peers.environments import SOURCE_TREE
from benchmarks.peers.inference import Inference
from benchmarks.processes import ServerError
from benchmarks.triton.server import triton_server
from serving.catalog import PublicModel, build, scan
from serving.manifest import Manifest, to_config
from serving.noise import Stream, normal

_LATENTS = 512

_WHOLE = """\
name: "whole" backend: "python" max_batch_size: {most}
input {{ name: "rows" data_type: TYPE_FP64 dims: 5 }}
output {{ name: "images" data_type: TYPE_UINT8 dims: [-1, -1, -1] }}
instance_group {{ count: {count} kind: KIND_CPU }}
"""


class Drawn:
    """A graph of one pass, whose latents the client has drawn before it asks."""

    process_id: int | None = None
    """Triton does nothing by itself."""

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
        public = build(scan(repository)).models[model]
        with tempfile.TemporaryDirectory() as root:
            name = _lay_out(Path(root), repository, public, setting)
            variables = {
                "BENCH_SOURCE_TREE": str(SOURCE_TREE),
                "BENCH_REPOSITORY": str(repository.resolve()),
                "BENCH_MODEL": model,
                "BENCH_THREADS": str(setting.threads),
            }
            with triton_server(Path(root), environment=variables) as server:
                async with grpc.aio.insecure_channel(server.grpc_address) as channel:
                    client = Inference(channel, name)
                    if not await client.ready():
                        raise ServerError(f"Triton does not load {name}:\n{server.said()}")
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
    config.parameters["intra_op_thread_count"].string_value = str(setting.threads)
    if setting.batch == 1:
        config.ClearField("dynamic_batching")
    (root / graph / "config.pbtxt").write_text(str(config), "utf-8")
    return graph


TRITON = Triton()

"""`python -m benchmarks.whole_sampler`: a sampler in one request to Triton beside the gateway's step by step.

Both are asked for the same pictures: one image a request, the same seeds, classes, sampler and guidance. They
take turns on the same cores, with two instances of one thread each.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import grpc.aio

from benchmarks.load import Send, closed_loop
from benchmarks.mixes import Ask, alike
from benchmarks.peers.atelier import serve
from benchmarks.peers.environments import SOURCE_TREE
from benchmarks.peers.inference import Inference
from benchmarks.peers.triton import Drawn
from benchmarks.triton.server import triton_server
from export.command import main as export
from serving.catalog import build, scan

MODELS = ("digits_unet", "shapes_unet")
SAMPLER, STEPS = "ddim", 20
CLIENTS = (1, 16)
TURNS, SECONDS, WARM_UP = 3, 2.0, 0.3
_INSTANCES = 2


async def main() -> None:
    """Measures, and prints a table."""
    print(f"| {SAMPLER}, {STEPS} steps | clients | median, ms | images/s |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        shutil.copytree(SOURCE_TREE / "model_repository", repository)
        for model in MODELS:
            asked = ["--from-model", model, "--sampler", f"{SAMPLER}:{STEPS}", "--to", str(repository)]
            if export(asked):
                raise SystemExit("the sampler was not exported")
        names = [f"{model}_{SAMPLER}{STEPS}" for model in MODELS]
        served = Path(folder) / "triton"
        for name in names:
            shutil.copytree(repository / name, served / name)
            with (served / name / "config.pbtxt").open("a", encoding="utf-8") as file:
                file.write(f"instance_group {{ count: {_INSTANCES} kind: KIND_CPU }}\n")
        with triton_server(served) as triton:
            await _compare(repository, triton.grpc_address)


async def _compare(repository: Path, triton_address: str) -> None:
    catalog = build(scan(repository))
    async with AsyncExitStack() as stack:
        flags = ("--instances", str(_INSTANCES), "--threads", "1")
        gateway = await stack.enter_async_context(serve(repository, *flags))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(triton_address))
        for model in MODELS:
            whole = catalog.models[f"{model}_{SAMPLER}{STEPS}"].first
            scale = float(whole.metadata["guidance_scale"])
            steps = Ask(model=model, seed=0, class_id=0, steps=STEPS, sampler=SAMPLER, guidance_scale=scale)
            one = Ask(model=whole.model, seed=0, class_id=0)
            contenders: dict[str, tuple[Send, Ask]] = {
                f"{model}, gateway, step by step": (gateway.send, steps),
                f"{model}, gateway, one call": (gateway.send, one),
                f"{model}, Triton, one request": (Drawn(Inference(channel, whole.graph), whole).send, one),
            }
            for clients in CLIENTS:
                await _turns(contenders, clients, len(whole.class_labels))


async def _turns(contenders: dict[str, tuple[Send, Ask]], clients: int, classes: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, (send, ask) in contenders.items():
            load = await closed_loop(
                send, alike(ask, classes=classes), clients=clients, warm_up=WARM_UP, seconds=SECONDS
            )
            found[name].append((median(load.latencies()), load.credit(lambda ask: ask.count)))
    for name, turns in found.items():
        latency, rate = (median(column) for column in zip(*turns, strict=True))
        print(f"| {name} | {clients} | {1e3 * latency:.1f} | {rate:,.0f} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

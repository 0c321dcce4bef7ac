"""`python -m benchmarks.swaps`: versions published one after the other under load, and what that costs.

A gateway of its own polls a repository of two shipped models, one of one pass and one of many steps. Clients
ask both without a pause while new versions are published as `atelier export` does, each as soon as the one
before is served, and old ones are removed. Counted are the requests that failed; measured are latencies with
and without publications, and the gateway's resident memory from first to last.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from benchmarks.peers.environments import SOURCE_TREE
from export.publish import Candidate, publish, published
from export.versions import graphs_of, prune
from serving.client import AsyncClient
from serving.client.gateway import gateway

MODELS = {"digits_gan": {}, "digits_unet": {"steps": 9}}
"""Models that are published again and again, and how they are asked."""
_KEPT = 2
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(kw_only=True)
class Seen:
    """What the clients saw."""

    newest: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, 1))
    seconds: dict[str, list[float]] = field(default_factory=lambda: {model: [] for model in MODELS})
    failed: Counter[str] = field(default_factory=Counter)


def main(arguments: list[str]) -> int:
    """Run the benchmark; 1 where a request failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000, help="versions to publish (default: 1000)")
    parser.add_argument("--clients", type=int, default=3, help="clients of each model (default: 3)")
    parser.add_argument("--quiet-seconds", type=float, default=10.0, help="time without publications, before")
    given = parser.parse_args(arguments)
    figures = asyncio.run(measure(given.swaps, given.clients, given.quiet_seconds, Console(stderr=True)))
    print(json.dumps(figures, indent=1))
    return 1 if figures["failed"] else 0


async def measure(swaps: int, clients: int, quiet_seconds: float, console: Console) -> dict[str, Any]:
    """Publishes and asks, and returns the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "repository"
        for model in MODELS:
            for manifest in graphs_of(SOURCE_TREE / "model_repository", model):
                shutil.copytree(
                    SOURCE_TREE / "model_repository" / manifest.graph, repository / manifest.graph
                )
        os.environ["ATELIER_POLL_SECONDS"] = "0.02"
        with gateway(repository) as running:
            return await _measure(repository, running, swaps, clients, quiet_seconds, console)


async def _measure(
    repository: Path, running: Any, swaps: int, clients: int, quiet_seconds: float, console: Console
) -> dict[str, Any]:
    seen = Seen()
    async with AsyncClient(running.grpc_address) as client:
        asking = [
            asyncio.create_task(_ask(client, model, fields, seen, number))
            for model, fields in MODELS.items()
            for number in range(clients)
        ]
        await asyncio.sleep(quiet_seconds)
        quiet = {model: _latency(seconds) for model, seconds in seen.seconds.items()}
        seen.seconds = {model: [] for model in MODELS}
        memory = [_resident(running.process.pid)]
        began = monotonic()
        for swap in range(1, swaps + 1):
            model = list(MODELS)[swap % len(MODELS)]
            version = await asyncio.to_thread(_publish_next, repository, model)
            while seen.newest[model] < version:  # noqa: ASYNC110 - it is the clients who see it
                await asyncio.sleep(0.002)
            memory.append(_resident(running.process.pid))
            if swap % 50 == 0:
                console.log(f"{swap} versions, {sum(seen.failed.values())} failed, {memory[-1] / 1e6:.0f} MB")
        seconds = monotonic() - began
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    settled = memory[min(100, len(memory) // 10) :]
    tenth = max(1, len(settled) // 10)
    return {
        "swaps": swaps,
        "seconds": round(seconds, 1),
        "requests": sum(map(len, seen.seconds.values())),
        "failed": sum(seen.failed.values()),
        "failures": dict(seen.failed),
        "latency_ms_quiet": quiet,
        "latency_ms_swapping": {model: _latency(seconds) for model, seconds in seen.seconds.items()},
        "resident_mb_first_tenth": round(statistics.median(settled[:tenth]) / 1e6, 1),
        "resident_mb_last_tenth": round(statistics.median(settled[-tenth:]) / 1e6, 1),
        "resident_mb_most": round(max(memory) / 1e6, 1),
    }


async def _ask(client: AsyncClient, model: str, fields: dict[str, Any], seen: Seen, number: int) -> None:
    """Asks again and again, and notes which version answers."""
    seeds = random.Random(number)
    while True:
        began = monotonic()
        try:
            answer = await client.generate(model, class_id=1, seed=seeds.randrange(2**32), **fields)
        except Exception as error:  # whatever it is, it is counted
            seen.failed[f"{type(error).__name__}: {error}"] += 1
            await asyncio.sleep(0.01)
        else:
            seen.seconds[model].append(monotonic() - began)
            seen.newest[model] = max(seen.newest[model], answer.run.version)


def _publish_next(repository: Path, model: str) -> int:
    """The newest version again, as another file: one that says its number where no runtime looks."""
    graphs = graphs_of(repository, model)
    before = max(graphs[0].versions)
    candidates = []
    for manifest in graphs:
        content = (repository / manifest.graph / str(before) / "model.onnx").read_bytes()
        marker = f"version {before + 1:>8}".encode()
        if before > 1:  # the marker of the version before
            content = content[: -len(marker) - 2]
        content += b"\x32" + bytes([len(marker)]) + marker  # field 6 of ModelProto, its doc_string
        record = dataclasses.replace(
            manifest.versions[before], sha256=hashlib.sha256(content).hexdigest(), probe=None
        )
        bare = dataclasses.replace(manifest, versions={})
        candidates.append(Candidate(manifest=bare, record=record, model=content))
    version = publish(repository, candidates)
    prune(repository, model, _KEPT)
    assert len(published(repository)[graphs[0].graph].versions) == _KEPT
    return version


def _latency(seconds: list[float]) -> dict[str, float]:
    milliseconds = sorted(1e3 * each for each in seconds)
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2), "most": round(milliseconds[-1], 2)}


def _resident(process: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1]) * _PAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

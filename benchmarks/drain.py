"""Rolling restarts under full load: `python -m benchmarks.drain --rounds 200` must lose nothing.

Two gateways stand behind a Service in small (see `endpoints`). Clients ask over gRPC and HTTP, plain and
streamed, each the next request when the last is answered, on connections that they keep; none ever asks for
the same again. In every round one gateway gets SIGTERM, ends, and is started again. Whatever is not answered
with the pictures that it asked for is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import grpc
import grpc.aio

from benchmarks.endpoints import Endpoint, Endpoints
from benchmarks.http_client import HttpClient
from benchmarks.peers.environments import SOURCE_TREE
from serving.client.gateway import free_ports
from serving.pb import image_generation_pb2 as pb
from serving.pb.image_generation_pb2_grpc import ImageGenerationStub

_PATIENCE = 120.0
_START_SECONDS = 120.0

Send = Callable[[int], Awaitable[None]]
"""Sends request number i; raises where it is not answered with its pictures."""


class NotAnsweredError(Exception):
    """An answer that is not what was asked for."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run."""

    repository: Path
    """Models that the gateways serve."""
    models: Sequence[str]
    """Models that are asked for, in turns."""
    rounds: int
    """Restarts."""
    clients: int = 16
    """Clients at a time, of all four kinds."""
    drain_delay: float = 1.0
    """Seconds for which a gateway that is told to end still serves."""
    period: float = 0.1
    """Seconds between two looks of the Service at who is ready."""
    settings: Sequence[str] = ()
    """Further flags for `atelier serve`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the requests."""

    rounds: int
    """Restarts."""
    answered: int
    """Requests that were answered with their pictures."""
    failed: dict[str, int]
    """Requests that were not, by what came instead."""
    requests_per_second: float
    """Requests answered a second, restarts included."""
    seconds_to_end: list[float]
    """From SIGTERM to the end of the process, by round."""


async def drain(plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """Runs the plan."""
    ports = free_ports(6)
    endpoints = [Endpoint(http=h, grpc=g, metrics=m) for h, g, m in (ports[:3], ports[3:])]
    service = Endpoints(endpoints, period=plan.period)
    counts: Counter[str] = Counter()
    seconds: list[float] = []
    with tempfile.TemporaryFile() as log:
        async with AsyncExitStack() as stack:
            fleet = [await stack.enter_async_context(_Gateway(plan, endpoint, log)) for endpoint in endpoints]
            where = await stack.enter_async_context(service.serving())
            for endpoint in endpoints:
                await service.until(endpoint, ready=True)
            stop, began = asyncio.Event(), time.perf_counter()
            clients = [
                asyncio.create_task(_client(number, plan, where["http"], where["grpc"], stop, counts))
                for number in range(plan.clients)
            ]
            turns = random.Random(0)
            for number in range(plan.rounds):
                await asyncio.sleep(turns.uniform(0.2, 0.6))
                gateway = fleet[number % len(fleet)]
                seconds.append(await gateway.end())
                await gateway.start()
                await service.until(gateway.endpoint, ready=True)
                lost = counts.total() - counts["ok"]
                which = f"round {number + 1} of {plan.rounds}"
                tell(f"{which}: ended in {seconds[-1]:.1f} s, {counts['ok']} answered, {lost} not")
            stop.set()
            await asyncio.gather(*clients)
            took = time.perf_counter() - began
    answered = counts.pop("ok", 0)
    return Outcome(
        rounds=plan.rounds,
        answered=answered,
        failed=dict(counts),
        requests_per_second=answered / took,
        seconds_to_end=seconds,
    )


class _Gateway:
    """One gateway of the fleet, on ports that it keeps."""

    def __init__(self, plan: Plan, endpoint: Endpoint, log: IO[bytes]) -> None:
        self.endpoint = endpoint
        self._plan = plan
        self._process: asyncio.subprocess.Process | None = None
        self._log = log

    async def __aenter__(self) -> _Gateway:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def start(self) -> None:
        """Starts the process."""
        plan, at = self._plan, self.endpoint
        command = [sys.executable, "-m", "atelier", "serve", "--repository", str(plan.repository)]
        command += ["--http-port", str(at.http), "--grpc-port", str(at.grpc)]
        command += ["--metrics-port", str(at.metrics), "--drain-delay", str(plan.drain_delay)]
        path = os.pathsep.join([str(SOURCE_TREE), os.environ.get("PYTHONPATH", "")])
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "--log-level",
            "warning",
            *plan.settings,
            stdout=self._log,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
        )

    async def end(self) -> float:
        """Sends SIGTERM and waits; seconds that it took. It must end well."""
        assert self._process is not None, "it was started"
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_PATIENCE):
            status = await self._process.wait()
        if status != 0:
            self._log.seek(0)
            raise RuntimeError(f"a gateway ended with status {status}:\n{self._log.read().decode()[-4000:]}")
        return time.perf_counter() - began


async def _client(
    number: int, plan: Plan, http: int, rpc: int, stop: asyncio.Event, counts: Counter[str]
) -> None:
    """One client, until it is told to stop and its last request is answered."""
    kind = (_grpc_plain, _grpc_stream, _http_plain, _http_stream)[number % 4]
    name = kind.__name__.strip("_").replace("_", " ")
    async with kind(plan, rpc if name.startswith("grpc") else http) as send:
        for turn in range(number, sys.maxsize, plan.clients):
            if stop.is_set():
                return
            try:
                async with asyncio.timeout(_PATIENCE):
                    await send(turn)
                counts["ok"] += 1
            except grpc.aio.AioRpcError as error:
                counts[f"{name}: {error.code().name}: {error.details()}"] += 1
            except (OSError, EOFError, TimeoutError, NotAnsweredError) as error:
                counts[f"{name}: {type(error).__name__}: {error}"] += 1


@asynccontextmanager
async def _stub(port: int) -> AsyncIterator[Any]:
    # No retry policy: only what gRPC itself sends once more, since its server never saw it.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield ImageGenerationStub(channel)  # type: ignore[no-untyped-call] # generated


@asynccontextmanager
async def _grpc_plain(plan: Plan, port: int) -> AsyncIterator[Send]:
    async with _stub(port) as stub:

        async def send(turn: int) -> None:
            answer = await stub.GenerateImages(_request(plan, turn))
            _check(len(answer.images))

        yield send


@asynccontextmanager
async def _grpc_stream(plan: Plan, port: int) -> AsyncIterator[Send]:
    async with _stub(port) as stub:

        async def send(turn: int) -> None:
            images = 0
            async for event in stub.StreamGenerateImages(_request(plan, turn)):
                images += len(event.result.images)
            _check(images)

        yield send


@asynccontextmanager
async def _http_plain(plan: Plan, port: int) -> AsyncIterator[Send]:
    async with HttpClient(port) as client:

        async def send(turn: int) -> None:
            status, body = await client.post(*_post(plan, turn, "generate"))
            if status != 200:
                raise NotAnsweredError(f"{status} {body[:200]!r}")
            _check(len(json.loads(body)["images"]))

        yield send


@asynccontextmanager
async def _http_stream(plan: Plan, port: int) -> AsyncIterator[Send]:
    async with HttpClient(port) as client:

        async def send(turn: int) -> None:
            status, body = await client.post(*_post(plan, turn, "streamGenerate"))
            if status != 200 or b"event: result\n" not in body:
                raise NotAnsweredError(f"{status} {body[-200:]!r}")

        yield send


def _request(plan: Plan, turn: int) -> pb.GenerateImagesRequest:
    return pb.GenerateImagesRequest(
        model=plan.models[turn % len(plan.models)], class_id=0, seed=turn, format=pb.IMAGE_FORMAT_RAW_U8
    )


def _post(plan: Plan, turn: int, verb: str) -> tuple[str, bytes]:
    model = plan.models[turn % len(plan.models)]
    return f"/v1/models/{model}:{verb}", json.dumps({"class_id": 0, "seed": turn}).encode()


def _check(images: int) -> None:
    if images != 1:
        raise NotAnsweredError(f"{images} images for one")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; exit status 1 where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description=__doc__.split("\n")[0])
    parser.add_argument("--repository", type=Path, default=SOURCE_TREE / "model_repository")
    parser.add_argument(
        "--models", default="digits_gan,digits_unet,digits_vae", help="(default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=200, help="restarts (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--drain-delay", type=float, default=1.0, help="seconds (default: %(default)s)")
    given = parser.parse_args(arguments)
    plan = Plan(
        repository=given.repository,
        models=given.models.split(","),
        rounds=given.rounds,
        clients=given.clients,
        drain_delay=given.drain_delay,
    )
    outcome = asyncio.run(drain(plan, lambda words: print(words, file=sys.stderr, flush=True)))
    ended = sorted(outcome.seconds_to_end)
    print(
        f"{outcome.rounds} restarts, {outcome.answered} requests answered "
        f"({outcome.requests_per_second:.0f} a second), {sum(outcome.failed.values())} failed or lost; "
        f"SIGTERM to the end of the process: median {ended[len(ended) // 2]:.2f} s, longest {ended[-1]:.2f} s"
    )
    for what, times in outcome.failed.items():
        print(f"  {times} × {what}")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())

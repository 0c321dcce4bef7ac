"""The gateway's own engine and admission on a simulated clock, over a machine of measured costs.

Everything that decides is the real thing: lanes, turns, cost tables, batches, the door. Only the backend is
simulated: a call takes the time that was measured for its number of rows. So hours of load on any number of
instances are seconds of one core, and each run gives the same figures.
"""

from __future__ import annotations

import asyncio
import selectors
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks import load
from benchmarks.mixes import Ask
from serving.batching import admission, calibration, dispatch, engine
from serving.batching.admission import Admission
from serving.batching.calibration import calibrate
from serving.batching.engine import Engine
from serving.batching.run import Runner
from serving.batching.ticket import Ticket, Work
from serving.calls import Call, Computed, Program, Tensors
from serving.catalog import Index
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.observing.metrics import Metrics
from serving.requests.work import calls_of
from serving.settings import Settings

Result = TypeVar("Result")

_DTYPES = {"float32": np.float32, "int64": np.int64}
_OUTCOMES = {Code.RESOURCE_EXHAUSTED: "refused", Code.DEADLINE_EXCEEDED: "late"}
# A call sees rows alone: in the noise level of its first row a request says that it takes a step, and in that
# of its first step that it is new.
_STEP, _NEW = 1.0, 4096.0


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a machine takes for the calls of one denoiser."""

    call_seconds: Mapping[int, float]
    """Seconds of a call by its rows as the gateway times it, all instances busy, with one request in it.

    In the gateway small calls cost more than by themselves, as their threads are woken and wait for their
    turn. That decides of how many rows batches are, and with it who waits for whom.
    """
    instances: int
    """Calls that run at a time: cores, or GPUs."""
    gpus: bool = False
    """Whether those are GPUs, which nothing else uses while they wait for the gateway."""
    step_work: float = 0.0
    """Seconds of a core that each further request in a call takes for its step, besides the call."""
    step_delay: float = 0.0
    """Seconds that pass at each step and take no core: threads are woken."""
    request_work: float = 0.0
    """Seconds of a core that each request takes once: it is read, and its pictures are encoded and sent."""
    request_delay: float = 0.0
    """Seconds that pass once and take no core."""

    def seconds(self, rows: int) -> float:
        """Of a call: linear between the sizes that were measured, and beyond in proportion."""
        sizes = sorted(self.call_seconds)
        at = bisect_left(sizes, rows)
        if at == len(sizes):
            return self.call_seconds[sizes[-1]] * rows / sizes[-1]
        above, below = sizes[at], sizes[max(0, at - 1)]
        if above == below or at == 0:
            return self.call_seconds[above]
        share = (rows - below) / (above - below)
        return self.call_seconds[below] + share * (self.call_seconds[above] - self.call_seconds[below])


class Machine:
    """A backend of instances that take their time on the simulated clock."""

    def __init__(self, manifest: Manifest, costs: Costs) -> None:
        self._manifest = manifest
        self._costs = costs
        self._free = asyncio.Semaphore(costs.instances)
        self._besides = asyncio.Semaphore(costs.instances)

    async def infer(
        self, graph: str, version: int, inputs: Tensors, *, first: bool = False, here: bool = False
    ) -> Computed:
        """Zeros, after the time that the call takes."""
        rows, costs = len(next(iter(inputs.values()))), self._costs
        new, steps = divmod(float(inputs["noise_level"].sum()), _NEW)
        seconds = costs.seconds(rows)
        # The engine hands over a call ahead, and calls of a few rows besides: those take next to nothing from
        # the others, and that nothing is left out.
        async with self._besides if first else self._free:
            work = max(0.0, steps - 1) * costs.step_work + new * costs.request_work
            await asyncio.sleep(seconds + work)
        await asyncio.sleep(costs.step_delay)
        outputs = {
            spec.name: np.zeros((rows, *spec.shape), _DTYPES[spec.dtype]) for spec in self._manifest.outputs
        }
        return Computed(outputs, seconds)

    def instances(self, graph: str) -> int:
        """All of them."""
        return self._costs.instances

    def slots(self) -> int:
        """The same."""
        return self._costs.instances

    def computes_here(self) -> bool:
        """Whether instances are cores."""
        return not self._costs.gpus

    def ready(self, graph: str, version: int) -> bool:
        """Always."""
        return True

    async def index(self) -> Index:
        """Its one graph."""
        return Index(manifests=[self._manifest], refused={}, stamps={})

    async def load(self, graph: str, version: int) -> None:
        """Nothing to do."""

    async def unload(self, graph: str, version: int) -> None:
        """Nothing to do."""

    def describe(self) -> Mapping[str, Any]:
        """That it is none."""
        return {"backend": "simulated"}

    async def close(self) -> None:
        """Nothing to do."""


class Gateway:
    """Engine and door over a simulated machine; asked as the load of the benchmark asks any server."""

    def __init__(self, manifest: Manifest, costs: Costs, settings: Settings | None = None) -> None:
        settings, metrics = settings or Settings(), Metrics(CollectorRegistry())
        self._manifest = manifest
        self._version = max(manifest.versions)
        self._request_delay = costs.request_delay
        self._engine = Engine(
            Machine(manifest, costs),
            {(manifest.graph, self._version): manifest},
            max_batch_bytes=settings.max_batch_bytes,
            metrics=metrics,
        )
        self._runner = Runner(
            self._engine,
            Admission(
                max_rows=settings.max_pending_rows,
                max_bytes=settings.max_pending_bytes,
                slots=self._engine.slots,
                backlog=self._engine.backlog,
                metrics=metrics,
            ),
        )

    async def start(self) -> None:
        """Measures the machine, as a gateway does when it has started."""
        await calibrate(self._engine, [(self._manifest, self._version)])

    async def send(self, ask: Ask) -> str:
        """Runs a request; "ok", or why not."""
        rows = ask.count * (1 if ask.guidance_scale == 1 else 2)
        calls = calls_of(ask.sampler, ask.steps)
        ticket = Ticket(
            version=self._version,
            deadline=asyncio.get_running_loop().time() + ask.timeout,
            weight=8.0,
            work=(Work(graph=self._manifest.graph, rows=rows, calls=calls),),
        )
        try:
            async with asyncio.timeout(ask.timeout):
                with self._runner.admitted(ticket):
                    await self._runner.run(self._program(rows, calls), ticket)
                await asyncio.sleep(self._request_delay)
        except ServingError as error:
            return _OUTCOMES.get(error.code, "failed")
        except TimeoutError:
            return "late"
        return "ok"

    def _program(self, rows: int, calls: int) -> Program[None]:
        inputs = {
            spec.name: np.zeros((rows, *spec.shape), _DTYPES[spec.dtype]) for spec in self._manifest.inputs
        }
        for number in range(calls):
            marks = inputs["noise_level"].copy()
            marks.reshape(-1)[0] = _STEP + (0.0 if number else _NEW)
            yield Call(graph=self._manifest.graph, inputs=inputs | {"noise_level": marks})


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that jumps to whatever comes next instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type] # a class that the platform chooses
    def __init__(self, loop: _Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the simulation waits for something that never comes")
        self._loop.now += max(0.0, timeout)
        return super().select(0)  # type: ignore[no-any-return]


def simulate(run: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """What the coroutine returns, on a simulated clock: whatever it sleeps takes no time."""
    loop = _Loop()
    try:
        with _clock(loop):
            return loop.run_until_complete(run())
    finally:
        loop.close()


@contextmanager
def _clock(loop: _Loop) -> Iterator[None]:
    """The simulated clock for every module that looks at one."""
    with ExitStack() as stack:
        for module in (admission, calibration, dispatch, engine):
            stack.enter_context(patch.object(module, "monotonic", loop.time))
        stack.enter_context(patch.object(load, "perf_counter", loop.time))
        yield

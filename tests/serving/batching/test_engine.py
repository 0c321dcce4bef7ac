"""The engine on a real backend whose calls are held back until the test lets them go."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.backends.onnxruntime import OnnxRuntimeBackend
from serving.batching.calibration import calibrate
from serving.batching.engine import Engine
from serving.batching.ticket import Ticket
from serving.calls import Call, Computed, Program, Progress, Tensors, once
from serving.catalog import build
from serving.errors import Code, ServingError
from serving.observing.metrics import Metrics

GAN = "tiny_gan"
INVERT = "tiny_translator_a_to_b"


class HeldBackend(OnnxRuntimeBackend):
    """Computes as ever, but each call waits for `let_go`; `seen` are the inputs of all calls."""

    def __init__(self, repository: Path, instances: int = 1) -> None:
        super().__init__(repository=repository, device="cpu", instances=instances, threads=1)
        self.seen: list[Tensors] = []
        self.here: list[bool] = []
        self.errors: list[Exception] = []
        self._gate = asyncio.Semaphore(0)

    async def infer(
        self, graph: str, version: int, inputs: Tensors, *, first: bool = False, here: bool = False
    ) -> Computed:
        self.seen.append({name: array.copy() for name, array in inputs.items()})
        self.here.append(here)
        await self._gate.acquire()
        if self.errors:
            raise self.errors.pop()
        return await super().infer(graph, version, inputs, first=first, here=here)

    def let_go(self, calls: int = 1000) -> None:
        for _ in range(calls):
            self._gate.release()

    @property
    def batches(self) -> list[int]:
        """Rows of the calls so far."""
        return [len(next(iter(inputs.values()))) for inputs in self.seen]


class Bench:
    """An engine with its backend and its metrics."""

    def __init__(self, repository: Path, instances: int = 1) -> None:
        self.repository = repository
        self.backend = HeldBackend(repository, instances)
        self.registry = CollectorRegistry()

    async def open(self) -> None:
        catalog = build(await self.backend.index())
        for graph, manifest in catalog.manifests.items():
            for version in manifest.versions:
                await self.backend.load(graph, version)
        manifests = {(m.graph, version): m for m in catalog.manifests.values() for version in m.versions}
        self.engine = Engine(self.backend, manifests, max_batch_bytes=2**20, metrics=Metrics(self.registry))

    def ask(self, call: Call, deadline: float = 60.0, version: int = 1) -> asyncio.Future[Tensors]:
        ticket = Ticket(version=version, deadline=monotonic() + deadline)
        return self.engine.run(once(call.graph, call.inputs), ticket)

    async def reference(self, call: Call) -> np.ndarray:
        backend = OnnxRuntimeBackend(repository=self.repository, device="cpu", instances=1, threads=1)
        await backend.load(call.graph, 1)
        outputs = (await backend.infer(call.graph, 1, call.inputs)).outputs
        await backend.close()
        return next(iter(outputs.values()))


@pytest.fixture
async def bench(tiny_repository: Path) -> AsyncIterator[Bench]:
    opened = Bench(tiny_repository)
    await opened.open()
    yield opened
    opened.backend.let_go()
    await opened.engine.close()
    await opened.backend.close()


@pytest.fixture
async def wide(tiny_repository: Path) -> AsyncIterator[Bench]:
    opened = Bench(tiny_repository, instances=2)
    await opened.open()
    yield opened
    opened.backend.let_go()
    await opened.engine.close()
    await opened.backend.close()


def gan(rows: int, seed: int = 0) -> Call:
    random = np.random.default_rng(seed)
    latent = random.standard_normal((rows, 4)).astype(np.float32)
    return Call(graph=GAN, inputs={"latent": latent, "class_id": random.integers(0, 3, (rows, 1))})


def image(rows: int, side: int = 4, seed: int = 0) -> Call:
    pixels = np.random.default_rng(seed).standard_normal((rows, 3, side, side)).astype(np.float32)
    return Call(graph=INVERT, inputs={"image": pixels})


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_idle_engine_computes_at_once(bench: Bench) -> None:
    task = bench.ask(image(3))
    await settle()
    assert bench.backend.batches == [3]
    bench.backend.let_go()
    np.testing.assert_array_equal((await task)["translated"], -image(3).inputs["image"])


async def test_a_moment_is_computed_in_the_loops_own_thread_when_nobody_else_is_there(bench: Bench) -> None:
    bench.backend.let_go()
    await bench.ask(gan(1))
    cost = bench.engine.cost(GAN, 1)
    assert cost is not None
    for _ in range(25):
        cost.observe(1, 0.0001)
    await bench.ask(gan(1))
    await asyncio.gather(bench.ask(gan(1)), bench.ask(gan(1)))
    others = [Ticket(version=1, deadline=monotonic() + 60) for _ in range(2)]
    for ticket in others:
        bench.engine.backlog.add(ticket)
    await bench.ask(gan(1))
    for ticket in others:
        bench.engine.backlog.remove(ticket)
    for _ in range(25):
        cost.observe(1, 0.01)
    await bench.ask(gan(1))
    # At first nobody knows what it costs; then there are two calls, then other requests, then it is long.
    assert bench.backend.here == [False, True, False, False, False]


async def test_what_waits_while_the_engine_is_busy_shares_the_next_call(bench: Bench) -> None:
    first = bench.ask(gan(1))
    await settle()
    others = [bench.ask(gan(rows, seed=rows)) for rows in (2, 3, 1)]
    await settle()
    assert bench.backend.batches == [1]
    bench.backend.let_go()
    outputs = [await task for task in (first, *others)]
    assert bench.backend.batches == [1, 6]
    for call, output in zip([gan(1), gan(2, 2), gan(3, 3), gan(1, 1)], outputs, strict=True):
        np.testing.assert_array_equal(output["sample"], await bench.reference(call))


async def test_a_large_call_is_split_and_put_together_again(bench: Bench) -> None:
    bench.backend.let_go()
    output = await bench.ask(gan(21))
    assert bench.backend.batches == [8, 8, 5]
    np.testing.assert_array_equal(output["sample"], await bench.reference(gan(21)))


async def test_rows_are_spread_over_what_is_free(wide: Bench) -> None:
    task = wide.ask(gan(7))
    await settle()
    assert sorted(wide.backend.batches) == [3, 4]
    wide.backend.let_go()
    np.testing.assert_array_equal((await task)["sample"], await wide.reference(gan(7)))


async def test_graphs_that_wait_take_turns(bench: Bench) -> None:
    bench.ask(image(1))
    await settle()
    tasks = [bench.ask(gan(8)) for _ in range(3)] + [bench.ask(image(1, seed=1))]
    await settle()
    bench.backend.let_go()
    await asyncio.gather(*tasks)
    assert ["image" in inputs for inputs in bench.backend.seen] == [True, False, True, False, False]


async def test_sizes_and_versions_do_not_mix(bench: Bench) -> None:
    first = bench.ask(gan(1))
    await settle()
    tasks = [
        bench.ask(image(1, side=4)),
        bench.ask(image(1, side=8)),
        bench.ask(gan(1)),
        bench.ask(gan(1), version=2),
    ]
    bench.backend.let_go()
    await asyncio.gather(first, *tasks)
    assert bench.backend.batches == [1] * 5


async def test_the_lanes_of_sizes_that_nobody_asks_for_are_forgotten(bench: Bench) -> None:
    bench.backend.let_go()
    for side in range(4, 84, 4):
        await bench.ask(image(1, side=side))
    await bench.ask(gan(1))
    await settle()
    assert len(bench.engine._lanes) == 1


async def test_batches_are_measured_while_nobody_waits(bench: Bench) -> None:
    graphs = [(bench.engine._manifests[graph, 1], 1) for graph in (GAN, INVERT)]
    calibration = asyncio.create_task(calibrate(bench.engine, graphs))
    await settle()
    asked = bench.ask(gan(1))
    await settle()
    assert bench.backend.batches == [1], "one instance: the request is behind the call that has begun"
    bench.backend.let_go(2)
    await asked
    bench.backend.let_go()
    await calibration
    cost = bench.engine.cost(GAN, 1)
    assert cost is not None
    assert all(cost.seconds(rows) > 0 for rows in (1, 2, 4))
    assert bench.engine.cost(INVERT, 1) is None
    assert bench.registry.get_sample_value("atelier_rows_total", {"graph": GAN}) == 1


async def test_a_batch_has_no_more_rows_than_are_worth_it(bench: Bench) -> None:
    cost = bench.engine.cost(GAN, 1)
    assert cost is not None
    for rows, seconds in {1: 0.01, 2: 0.01, 4: 0.024, 8: 0.048}.items():
        for _ in range(25):
            cost.observe(rows, seconds)
    bench.backend.let_go()
    await bench.ask(gan(7))
    assert bench.backend.batches == [2, 2, 2, 1]


async def test_one_batch_goes_ahead_so_that_no_instance_waits_for_its_next(wide: Bench) -> None:
    cost = wide.engine.cost(GAN, 1)
    assert cost is not None
    for rows, seconds in {1: 0.01, 2: 0.01, 4: 0.024}.items():
        for _ in range(25):
            cost.observe(rows, seconds)
    tasks = [wide.ask(gan(4, seed)) for seed in range(5)]
    await settle()
    assert wide.backend.batches == [2, 2, 2], (
        "of 20 rows those of both instances, and of the one that is free first"
    )
    wide.backend.let_go()
    await asyncio.gather(*tasks)


async def test_batches_of_models_that_are_called_once_are_the_larger_ones(bench: Bench) -> None:
    best = {}
    for graph in (GAN, "tiny_gaussian"):
        cost = bench.engine.cost(graph, 1)
        assert cost is not None
        for rows in (1, 2, 4, 8, 16, 32):
            for _ in range(25):
                cost.observe(rows, 1e-3 * rows)
        best[graph] = cost.full(64)
    assert best == {GAN: 16, "tiny_gaussian": 8}


async def test_rows_computed_for_one_that_has_gone_are_counted(bench: Bench) -> None:
    leaving, staying = bench.ask(gan(3)), bench.ask(gan(2))
    await settle()
    assert bench.backend.batches == [5]
    leaving.cancel()
    bench.backend.let_go()
    await staying
    assert bench.registry.get_sample_value("atelier_rows_in_vain_total", {"graph": GAN}) == 3


async def test_a_batch_takes_no_more_bytes_than_it_may(bench: Bench) -> None:
    bench.backend.let_go()
    await bench.ask(image(5, side=200))
    assert bench.backend.batches == [2, 2, 1]


async def test_a_cancelled_caller_takes_no_row_of_the_next_call_and_mates_never_notice(bench: Bench) -> None:
    first = bench.ask(gan(1))
    await settle()
    before, leaving, after = bench.ask(gan(2, 1)), bench.ask(gan(3, 2)), bench.ask(gan(2, 3))
    await settle()
    leaving.cancel()
    await settle()
    bench.backend.let_go()
    outputs = await asyncio.gather(first, before, after)
    assert leaving.cancelled()
    assert bench.backend.batches == [1, 4]
    for call, output in zip([gan(1), gan(2, 1), gan(2, 3)], outputs, strict=True):
        np.testing.assert_array_equal(output["sample"], await bench.reference(call))


async def test_a_caller_that_leaves_in_mid_call_takes_nothing_from_its_mates(bench: Bench) -> None:
    first = bench.ask(gan(1))
    await settle()
    leaving, staying = bench.ask(gan(3, 2)), bench.ask(gan(2, 3))
    await settle()
    bench.backend.let_go(1)
    await first
    await settle()
    assert bench.backend.batches == [1, 5]
    leaving.cancel()
    bench.backend.let_go()
    np.testing.assert_array_equal((await staying)["sample"], await bench.reference(gan(2, 3)))


async def test_a_call_that_nobody_waits_for_any_more_is_ended_in_the_backend(bench: Bench) -> None:
    leaving = [bench.ask(gan(2, seed)) for seed in range(2)]
    await settle()
    leaving[0].cancel()
    await settle()
    staying = bench.ask(gan(1))
    await settle()
    assert bench.backend.batches == [4], "a mate still waits for it"
    leaving[1].cancel()
    await settle()
    assert bench.backend.batches == [4, 1], "nothing was let go, and the instance is free"
    bench.backend.let_go()
    np.testing.assert_array_equal((await staying)["sample"], await bench.reference(gan(1)))


async def test_a_large_call_that_is_cancelled_stops_between_its_parts(bench: Bench) -> None:
    large = bench.ask(gan(80))
    await settle()
    large.cancel()
    await settle()
    bench.backend.let_go()
    await bench.ask(gan(2))
    assert bench.backend.batches == [8, 8, 2], "the first runs, the second was handed over, the rest is not"
    assert bench.registry.get_sample_value("atelier_rows_pending") == 0


async def test_tensors_are_let_go_of_however_a_call_ends(bench: Bench) -> None:
    """Queues remember calls that have gone until they meet them, but not what those held."""
    kept: dict[str, weakref.ref[np.ndarray]] = {}

    def ask(name: str, rows: int = 2) -> asyncio.Future[Tensors]:
        call = gan(rows)
        kept[name] = weakref.ref(call.inputs["latent"])
        return bench.ask(call)

    def held() -> list[str]:
        return [name for name, array in kept.items() if array() is not None]

    first = ask("first")
    await settle()
    leaving, failing, large, waiting = ask("leaving"), ask("failing"), ask("large", 40), ask("waiting")
    await settle()
    waiting.cancel()
    await settle()
    assert held() == ["first", "leaving", "failing", "large"]
    assert bench.backend.batches == [2, 8]
    bench.backend.let_go(1)
    await first
    await settle()
    large.cancel()
    leaving.cancel()
    await settle()
    assert held() == ["leaving", "failing", "large"], "they are in a batch, of which one is wanted"
    bench.backend.errors.append(ServingError(Code.UNAVAILABLE, "gone"))
    after = ask("after")
    bench.backend.let_go(1)
    with pytest.raises(ServingError):
        await failing
    await settle()
    assert held() == ["after"]
    bench.backend.let_go()
    await after


async def test_an_expired_caller_is_not_computed(bench: Bench) -> None:
    first = bench.ask(gan(1))
    await settle()
    expired, staying = bench.ask(gan(3), deadline=-1.0), bench.ask(gan(2))
    bench.backend.let_go()
    await asyncio.gather(first, staying)
    with pytest.raises(ServingError) as error:
        await expired
    assert error.value.code == Code.DEADLINE_EXCEEDED
    assert bench.backend.batches == [1, 2]


async def test_a_failing_call_gives_each_request_one_error_and_the_next_call_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    first = bench.ask(gan(1))
    await settle()
    tasks = [bench.ask(gan(2)), bench.ask(gan(3))]
    await settle()
    bench.backend.let_go(1)
    await first
    bench.backend.errors += [RuntimeError("the card fell off the bus") for _ in range(3)]
    bench.backend.let_go(3)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ServingError, ServingError]
    assert errors[0] is not errors[1]
    assert {error.code for error in errors} == {Code.INTERNAL}
    assert "bus" not in str(errors[0])
    assert "fell off the bus" in caplog.text
    assert bench.registry.get_sample_value("atelier_call_failures_total", {"graph": GAN}) == 3
    bench.backend.let_go()
    await bench.ask(gan(1))


async def test_a_call_that_follows_an_outage_does_not_tell_what_calls_cost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[int] = []
    cost = bench.engine.cost(GAN, 1)
    assert cost is not None
    monkeypatch.setattr(cost, "observe", lambda rows, seconds: observed.append(rows))
    bench.backend.let_go()
    await bench.ask(gan(1))
    bench.backend.errors.append(ServingError(Code.UNAVAILABLE, "gone"))
    with pytest.raises(ServingError):
        await bench.ask(gan(2))
    await bench.ask(gan(3))
    assert observed == [1]
    monkeypatch.setattr("serving.batching.engine.monotonic", lambda: time.monotonic() + 60)
    await bench.ask(gan(4))
    assert observed == [1, 4]


async def test_rows_at_fault_fail_alone(bench: Bench) -> None:
    """A class that is not there makes the whole batch fail: its mates are computed without it."""
    first = bench.ask(gan(1))
    await settle()
    bad = gan(1)
    bad.inputs["class_id"][:] = 99
    calls = [gan(2, seed=1), bad, gan(3, seed=2)]
    tasks = [bench.ask(call) for call in calls]
    await settle()
    bench.backend.let_go()
    good, fault, other = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(fault, ServingError)
    assert fault.code == Code.INTERNAL
    np.testing.assert_array_equal(good["sample"], await bench.reference(calls[0]))
    np.testing.assert_array_equal(other["sample"], await bench.reference(calls[2]))
    await first
    assert bench.backend.batches == [1, 6, 2, 1, 3]


async def test_what_has_gone_meanwhile_is_not_computed_again(bench: Bench) -> None:
    tasks = [bench.ask(gan(1))]
    await settle()
    tasks += [bench.ask(gan(rows, seed=rows)) for rows in (2, 3)]
    await settle()
    bench.backend.let_go(1)
    await tasks[0]
    await settle()
    bench.backend.errors.append(RuntimeError("not this time"))
    tasks[1].cancel()
    await settle()
    bench.backend.let_go()
    assert (await tasks[2])["sample"].shape[0] == 3
    assert bench.backend.batches == [1, 5, 3]


async def test_calls_and_batches_are_counted(bench: Bench) -> None:
    first = bench.ask(gan(1))
    await settle()
    others = [bench.ask(gan(rows, seed=rows)) for rows in (2, 3)]
    gone = bench.ask(gan(1))
    await settle()
    gone.cancel()
    await settle()
    bench.backend.let_go()
    await asyncio.gather(first, *others)
    counted = bench.engine.statistics.of(GAN, 1)
    assert (counted.rows, counted.batches) == (6, 2)
    assert (counted.success.count, counted.fail.count, counted.queue.count) == (3, 1, 3)
    assert counted.success.seconds >= counted.queue.seconds > 0
    assert {rows: phases.infer.count for rows, phases in counted.by_rows.items()} == {1: 1, 5: 1}
    assert counted.phases.infer.count == 3
    assert counted.phases.infer.seconds > sum(each.infer.seconds for each in counted.by_rows.values())
    assert counted.last > 0
    bench.engine.forget(GAN, 1)
    assert bench.engine.statistics.of(GAN, 1).rows == 0


async def test_a_batch_below_the_least_rows_is_filled_up(tiny_repository: Path) -> None:
    bench = Bench(tiny_repository)
    await bench.open()
    lane = bench.engine._lane(gan(1), 1)
    lane.min_rows = 4
    bench.backend.let_go()
    output = await bench.ask(gan(2))
    assert bench.backend.batches == [4]
    assert output["sample"].shape[0] == 2
    np.testing.assert_array_equal(output["sample"], await bench.reference(gan(2)))
    await bench.engine.close()
    await bench.backend.close()


async def test_closing_answers_what_waits_and_finishes_what_is_computed(bench: Bench) -> None:
    computed = bench.ask(gan(1))
    await settle()
    waiting = bench.ask(gan(1))
    await settle()
    closing = asyncio.create_task(bench.engine.close())
    await settle()
    bench.backend.let_go()
    await closing
    assert (await computed)["sample"].shape[0] == 1
    for task in (waiting, bench.ask(gan(1))):
        with pytest.raises(ServingError) as error:
            await task
        assert error.value.code == Code.UNAVAILABLE


async def test_tickets_and_metrics_tell_waiting_from_computing(bench: Bench) -> None:
    ticket = Ticket(version=1, deadline=monotonic() + 60)
    bench.ask(gan(1))
    await settle()
    task = bench.engine.run(once(GAN, gan(2).inputs), ticket)
    await asyncio.sleep(0.05)
    bench.backend.let_go()
    await task
    assert ticket.queue_seconds >= 0.045
    assert ticket.compute_seconds > 0
    assert bench.registry.get_sample_value("atelier_rows_total", {"graph": GAN}) == 3
    assert bench.registry.get_sample_value("atelier_batch_rows_count", {"graph": GAN}) == 2
    assert bench.registry.get_sample_value("atelier_queue_seconds_count", {"graph": GAN}) == 2


async def test_a_thousand_calls_that_come_and_go_are_all_accounted_for(wide: Bench) -> None:
    """Random sizes, graphs, cancellations and deadlines; every call that stays has its own answer."""
    random = np.random.default_rng(1)
    wide.backend.let_go(100_000)

    async def one(number: int) -> str:
        rows = int(random.integers(1, 20))
        call = gan(rows, number) if number % 3 else image(rows, side=4 * (1 + number % 4), seed=number)
        patience = float(random.choice([60.0, 60.0, 0.0]))
        await asyncio.sleep(float(random.uniform(0, 0.5)))
        task = wide.ask(call, deadline=patience)
        if number % 5 == 0:
            asyncio.get_running_loop().call_later(float(random.uniform(0, 0.01)), task.cancel)
        try:
            outputs = await task
        except asyncio.CancelledError:
            return "cancelled"
        except ServingError as error:
            return error.code
        if call.graph == INVERT:
            np.testing.assert_array_equal(outputs["translated"], -call.inputs["image"])
        else:
            assert outputs["sample"].shape[0] == rows
        return "answered"

    results = await asyncio.gather(*map(one, range(1000)))
    assert len(results) == 1000
    assert set(results) <= {"answered", "cancelled", Code.DEADLINE_EXCEEDED}
    assert results.count("answered") > 300
    await settle()
    assert wide.registry.get_sample_value("atelier_rows_pending") == 0
    assert wide.engine._dispatcher.idle


def long_call(bench: Bench, seed: int) -> asyncio.Future[Tensors]:
    ticket = Ticket(version=1, deadline=monotonic() + 60, expected_seconds=10.0)
    return bench.engine.run(once(GAN, gan(2, seed=seed).inputs), ticket)


async def test_a_short_request_is_computed_besides_long_ones_that_have_every_instance(wide: Bench) -> None:
    long = [long_call(wide, seed) for seed in (1, 2)]
    for task in long:
        await settle()
        assert not task.done()
    waiting = long_call(wide, 3)
    short = wide.ask(gan(1, seed=9))
    await settle()
    assert wide.backend.batches == [2, 2, 1], "alone, and before the long one that came first"
    wide.backend.let_go()
    np.testing.assert_array_equal((await short)["sample"], await wide.reference(gan(1, seed=9)))
    await asyncio.gather(*long, waiting)


async def test_short_requests_are_not_computed_besides_when_that_would_cost_too_much(wide: Bench) -> None:
    wide.engine._dispatcher._haste.ask(1.0)
    long = [long_call(wide, seed) for seed in (1, 2)]
    await settle()
    short = wide.ask(gan(1, seed=9))
    await settle()
    assert wide.backend.batches == [2, 2]
    wide.backend.let_go()
    await asyncio.gather(*long, short)


def step(rows: int) -> Call:
    inputs = {"x": np.zeros((rows, 3, 8, 8), np.float32), "noise_level": np.ones((rows, 1), np.float32)}
    return Call(graph="tiny_gaussian", inputs={**inputs, "class_id": np.zeros((rows, 1), np.int64)})


def steps(bench: Bench, rows: int, *, seconds: float, noise_level: float = 1.0) -> asyncio.Task[None]:
    """A request of so many seconds in all, of which two steps are there."""

    def program() -> Program[None]:
        for _ in range(2):
            call = step(rows)
            levels = np.full((rows, 1), noise_level, np.float32)
            yield replace(call, inputs={**call.inputs, "noise_level": levels})

    ticket = Ticket(version=1, deadline=monotonic() + 60, expected_seconds=seconds)
    return bench.engine.run(program(), ticket)


@pytest.mark.parametrize(
    ("seconds", "row_seconds", "here", "ahead"),
    [(0.1, 2e-3, True, 0), (10.0, 2e-3, True, 1), (0.1, 1e-4, True, 1), (0.1, 2e-3, False, 1)],
)
async def test_no_batch_goes_ahead_where_short_requests_would_miss_it_at_each_step(
    monkeypatch: pytest.MonkeyPatch,
    wide: Bench,
    seconds: float,
    row_seconds: float,
    here: bool,
    ahead: int,
) -> None:
    """But it does where instances would be idle meanwhile: where calls are short, or computed elsewhere."""
    monkeypatch.setattr(wide.backend, "computes_here", lambda: here)
    cost = wide.engine.cost("tiny_gaussian", 1)
    assert cost is not None
    for rows in (1, 2, 4, 8):
        for _ in range(25):
            cost.observe(rows, 0.001 + row_seconds * rows)
    wide.engine._dispatcher._haste.ask(1.0)  # nobody is computed besides
    tasks = [steps(wide, 1, seconds=seconds, noise_level=2.0)]
    for rows in (1, 32):
        await settle()
        tasks.append(steps(wide, rows, seconds=10.0))
    await settle()
    assert len(wide.backend.seen) == 2 + ahead
    wide.backend.let_go(1)
    async with asyncio.timeout(5):
        while len(wide.backend.seen) < 3 + ahead:
            await asyncio.sleep(0.001)
    assert (2.0 in wide.backend.seen[2]["noise_level"]) == (not ahead)
    wide.backend.let_go()
    await asyncio.gather(*tasks)


async def come_one_after_the_other(bench: Bench, call: Call, *, row_seconds: float) -> list[int]:
    """Rows of calls where always two requests come, some turns of the event loop apart."""
    cost = bench.engine.cost(call.graph, 1)
    assert cost is not None
    for rows in (1, 2, 4, 8):
        for _ in range(25):
            cost.observe(rows, row_seconds * rows)
    for _ in range(300):
        bench.backend.let_go(2)
        await asyncio.gather(bench.ask(call), later(4, bench, call))
    return bench.backend.batches


async def later(turns: int, bench: Bench, call: Call) -> Tensors:
    for _ in range(turns):
        await asyncio.sleep(0)
    return await bench.ask(call)


async def test_short_calls_wait_for_who_is_on_the_way(wide: Bench) -> None:
    batches = await come_one_after_the_other(wide, gan(1), row_seconds=1e-4)
    assert batches[:2] == [1, 1]
    assert batches[-20:] == [2] * 20


async def test_calls_whose_rows_cost_more_than_a_call_does_besides_wait_for_nobody(wide: Bench) -> None:
    assert set(await come_one_after_the_other(wide, gan(1), row_seconds=1e-2)) == {1}


async def test_steps_wait_for_nobody(wide: Bench) -> None:
    assert set(await come_one_after_the_other(wide, step(1), row_seconds=1e-4)) == {1}


async def test_what_comes_beside_short_calls_is_spread_over_what_is_free(tiny_repository: Path) -> None:
    bench = Bench(tiny_repository, instances=4)
    await bench.open()
    await come_one_after_the_other(bench, gan(1), row_seconds=1e-4)
    cost = bench.engine.cost("tiny_gaussian", 1)
    assert cost is not None
    for rows in (1, 2, 4, 8):
        for _ in range(3):
            cost.observe(rows, 2e-3 * rows)
    assert cost.full(8) == 4
    before = len(bench.backend.seen)
    bench.backend.let_go()
    await asyncio.gather(bench.ask(gan(1)), later(4, bench, step(4)))
    await bench.engine.close()
    await bench.backend.close()
    assert [len(inputs["x"]) for inputs in bench.backend.seen[before:] if "x" in inputs] == [2, 2]


async def test_an_engine_whose_last_call_was_cancelled_is_idle(bench: Bench) -> None:
    computing, waiting = bench.ask(gan(1)), bench.ask(image(1))
    await settle()
    idle = asyncio.create_task(bench.engine.idle())
    await settle()
    assert not idle.done()
    bench.backend.let_go(1)
    await computing
    waiting.cancel()
    bench.backend.let_go()
    await asyncio.wait_for(idle, 10)


async def test_a_request_that_is_cancelled_by_its_own_listener_harms_none_of_its_batch_mates(
    bench: Bench,
) -> None:
    def program() -> Program[None]:
        yield gan(1)
        yield Progress(step=1, steps=1)

    busy = bench.ask(gan(1))
    await settle()
    ticket = Ticket(version=1, deadline=monotonic() + 60)
    leaving = bench.engine.run(program(), ticket, lambda _: leaving.cancel())
    await settle()
    mate = bench.ask(gan(2))
    await settle()
    bench.backend.let_go()
    assert (await asyncio.wait_for(mate, 10))["sample"].shape[0] == 2
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await busy


async def test_an_error_of_one_program_is_its_own(bench: Bench) -> None:
    def program() -> Program[None]:
        yield gan(1)
        raise ZeroDivisionError

    busy = bench.ask(gan(1))
    await settle()
    ticket = Ticket(version=1, deadline=monotonic() + 60)
    failing = bench.engine.run(program(), ticket)
    mate = bench.ask(gan(2))
    await settle()
    bench.backend.let_go()
    with pytest.raises(ZeroDivisionError):
        await failing
    assert (await asyncio.wait_for(mate, 10))["sample"].shape[0] == 2
    await busy


async def test_instances_that_no_call_may_have_do_not_count_as_busy(
    wide: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide.backend, "instances", lambda graph: 1)
    expected = wide.engine.backlog.throughput.share
    wide.backend.let_go()
    first = wide.ask(gan(1))
    await settle()
    await asyncio.gather(first, *(wide.ask(gan(1, seed=seed)) for seed in range(5)))
    assert wide.engine.backlog.throughput.share == expected


async def test_what_was_begun_without_a_task_is_withdrawn_when_it_is_cancelled(bench: Bench) -> None:
    closed = []

    def program() -> Program[Tensors]:
        try:
            return (yield from once(GAN, gan(2).inputs))
        finally:
            closed.append(True)

    busy = bench.ask(gan(1))
    await settle()
    leaving = bench.engine.run(program(), Ticket(version=1, deadline=monotonic() + 60))
    staying = bench.engine.run(once(GAN, gan(3).inputs), Ticket(version=1, deadline=monotonic() + 60))
    await settle()
    leaving.cancel()
    await settle()
    assert closed == [True]
    bench.backend.let_go()
    await asyncio.gather(busy, staying)
    assert bench.backend.batches == [1, 3]
    await bench.engine.idle()

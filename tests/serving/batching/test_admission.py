import asyncio
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry

from serving.batching.admission import Admission
from serving.batching.ticket import Backlog, Ticket, Work
from serving.errors import Code, ServingError
from serving.observing.metrics import Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def door(registry: CollectorRegistry) -> Admission:
    return Admission(
        max_rows=10, max_bytes=100, slots=lambda: 1, backlog=Backlog(), metrics=Metrics(registry)
    )


def asked(rows: int, seconds: float = 1.0, deadline: float = 1000.0) -> Ticket:
    return Ticket(
        version=1,
        deadline=monotonic() + deadline,
        work=(Work(graph="graph", rows=rows),),
        expected_seconds=seconds,
        expected_duration=seconds,
    )


def test_requests_enter_while_there_is_room_and_leave_it_to_others(
    door: Admission, registry: CollectorRegistry
) -> None:
    with door.admit(asked(6)), door.admit(asked(4)):
        assert registry.get_sample_value("atelier_rows_admitted") == 10
        with pytest.raises(ServingError) as error, door.admit(asked(1)):
            raise AssertionError("let in")
    assert error.value.code == Code.RESOURCE_EXHAUSTED
    assert error.value.retry_after is not None
    assert error.value.retry_after > 0
    assert registry.get_sample_value("atelier_requests_refused_total", {"reason": "rows"}) == 1
    with door.admit(asked(10)):
        pass
    assert registry.get_sample_value("atelier_rows_admitted") == 0


def test_a_request_that_fails_leaves_its_room(door: Admission, registry: CollectorRegistry) -> None:
    with pytest.raises(ZeroDivisionError), door.admit(asked(10)):
        raise ZeroDivisionError
    assert registry.get_sample_value("atelier_rows_admitted") == 0


def test_a_request_that_never_fits_is_told_so_rather_than_to_come_again(door: Admission) -> None:
    with (
        pytest.raises(ServingError, match="11 rows at a time and the gateway at most 10") as error,
        door.admit(asked(11)),
    ):
        raise AssertionError("let in")
    assert error.value.retry_after is None


def test_a_deadline_that_the_backlog_makes_impossible_is_refused_with_when_to_come_again(
    door: Admission, registry: CollectorRegistry
) -> None:
    with door.admit(asked(1, seconds=6, deadline=20)), door.admit(asked(1, seconds=6, deadline=20)):
        with (
            pytest.raises(ServingError, match="requests before it take") as error,
            door.admit(asked(1, seconds=14, deadline=20)),
        ):
            raise AssertionError("let in")
        with door.admit(asked(1, seconds=14, deadline=2000)):
            pass
        with door.admit(asked(1, seconds=0.01, deadline=1)):
            assert registry.get_sample_value("atelier_rows_admitted") == 3
    assert error.value.code == Code.RESOURCE_EXHAUSTED
    assert error.value.retry_after is not None
    assert registry.get_sample_value("atelier_requests_refused_total", {"reason": "late"}) == 1


def test_a_request_that_an_idle_machine_does_just_in_time_is_let_in(door: Admission) -> None:
    with door.admit(asked(1, seconds=9, deadline=10)):
        pass


def test_what_an_idle_machine_cannot_do_in_time_is_refused_at_once(door: Admission) -> None:
    with (
        pytest.raises(ServingError, match="takes about 5 s on an idle machine") as error,
        door.admit(asked(1, seconds=5, deadline=1)),
    ):
        raise AssertionError("let in")
    assert error.value.code == Code.DEADLINE_EXCEEDED
    assert error.value.retry_after is None


def test_on_an_idle_machine_one_may_try_now_and_then_lest_a_wrong_cost_last(
    registry: CollectorRegistry,
) -> None:
    door = Admission(
        max_rows=10,
        max_bytes=100,
        slots=lambda: 1,
        backlog=Backlog(),
        metrics=Metrics(registry),
        look_again=0,
    )
    trying = asked(1, seconds=5, deadline=1)
    with door.admit(trying):
        assert not trying.hopeless(monotonic())
        with pytest.raises(ServingError), door.admit(asked(1, seconds=5, deadline=1)):
            raise AssertionError("let in beside it")


def test_the_time_to_come_again_grows_with_the_backlog(door: Admission) -> None:
    waits = []
    for seconds in (1.0, 10.0):
        full = asked(10, seconds=seconds)
        with door.admit(full), pytest.raises(ServingError) as error, door.admit(asked(5)):
            raise AssertionError("let in")
        waits.append(error.value.retry_after)
    assert waits == [pytest.approx(0.5 / 0.9), pytest.approx(5.0 / 0.9)], "at the throughput that is expected"


def test_bytes_are_bounded_and_given_back(door: Admission, registry: CollectorRegistry) -> None:
    with door.hold(60), pytest.raises(ServingError, match="60 of 100 bytes") as error, door.hold(41):
        raise AssertionError("let in")
    assert error.value.code == Code.RESOURCE_EXHAUSTED
    assert error.value.retry_after is not None
    with door.hold(100):
        assert registry.get_sample_value("atelier_bytes_admitted") == 100
    with pytest.raises(ServingError, match="takes 101 bytes") as error, door.hold(101):
        raise AssertionError("let in")
    assert error.value.retry_after is None
    assert registry.get_sample_value("atelier_bytes_admitted") == 0


def test_rows_of_a_request_that_goes_before_its_end_were_computed_in_vain(
    door: Admission, registry: CollectorRegistry
) -> None:
    ticket = asked(3)
    ticket.rows["graph"] = 12
    with pytest.raises(ZeroDivisionError), door.admit(ticket):
        raise ZeroDivisionError
    with door.admit(asked(3)) as _:
        pass
    assert registry.get_sample_value("atelier_rows_in_vain_total", {"graph": "graph"}) == 12


@pytest.mark.parametrize("fails", [None, ZeroDivisionError])
async def test_room_that_a_task_holds_comes_back_at_its_end(
    door: Admission, registry: CollectorRegistry, fails: type[Exception] | None
) -> None:
    async def work() -> None:
        if fails is not None:
            raise fails

    ticket = asked(3)
    ticket.rows["graph"] = 12
    task = asyncio.create_task(work())
    door.admit(ticket, 30).until(task)
    assert registry.get_sample_value("atelier_rows_admitted") == 3
    assert registry.get_sample_value("atelier_bytes_admitted") == 30
    await asyncio.wait([task])
    assert registry.get_sample_value("atelier_rows_admitted") == 0
    assert registry.get_sample_value("atelier_bytes_admitted") == 0
    in_vain = registry.get_sample_value("atelier_rows_in_vain_total", {"graph": "graph"})
    assert in_vain == (None if fails is None else 12)


async def test_a_task_that_is_cancelled_before_its_first_step_leaves_its_room(
    door: Admission, registry: CollectorRegistry
) -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    door.admit(asked(10)).until(task)
    task.cancel()
    await asyncio.wait([task])
    assert registry.get_sample_value("atelier_rows_admitted") == 0

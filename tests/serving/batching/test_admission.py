from time import monotonic

import pytest
from prometheus_client import CollectorRegistry

from serving.batching.admission import Admission
from serving.batching.ticket import Ticket, Work
from serving.errors import Code, ServingError
from serving.metrics import Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def door(registry: CollectorRegistry) -> Admission:
    return Admission(max_rows=10, max_bytes=100, slots=lambda: 1, metrics=Metrics(registry))


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
    assert registry.get_sample_value("atelier_requests_refused_total") == 1
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

"""What every request goes through, in a block of its own."""

import asyncio
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry

from serving.errors import Code, ServingError
from serving.observing.metrics import Metrics
from serving.requests.context import RequestContext, Requests


class Door:
    """Requests, and how those that have ended were counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Requests(models=["gan"], default_deadline=60.0, metrics=Metrics(self.registry))

    def ended(self, code: str) -> float:
        labels = {"method": "Draw", "task": "", "model": "gan", "version": "", "code": code}
        return self.registry.get_sample_value("atelier_requests_total", labels) or 0.0

    def under_way(self) -> float | None:
        return self.registry.get_sample_value("atelier_requests_in_flight", {"method": "Draw"})

    async def wait(self, seconds: float = 60.0) -> None:
        """A request that waits for nothing, until its deadline."""
        with self.requests.track("Draw", "gan", RequestContext(deadline=monotonic() + seconds)):
            await asyncio.Event().wait()


async def test_at_its_deadline_a_request_is_cancelled_and_the_client_told() -> None:
    door = Door()
    with pytest.raises(ServingError, match=r"the deadline passed after 0\.0 s") as error:
        await door.wait(0.01)
    assert error.value.code == Code.DEADLINE_EXCEEDED
    assert (door.ended("DEADLINE_EXCEEDED"), door.under_way()) == (1, 0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # what comes after it in the same task is not cancelled


async def test_a_request_without_a_deadline_has_that_of_the_gateway() -> None:
    door = Door()
    door.requests.default_deadline = 0.01
    with (
        pytest.raises(ServingError, match="the deadline passed"),
        door.requests.track("Draw", "gan", RequestContext()),
    ):
        await asyncio.Event().wait()


async def test_a_deadline_that_has_passed_ends_a_request_at_its_first_wait() -> None:
    door = Door()
    with pytest.raises(ServingError, match="the deadline passed"):
        await door.wait(-1.0)


async def test_whoever_cancels_a_request_besides_its_deadline_has_it_cancelled() -> None:
    door = Door()
    task = asyncio.create_task(door.wait(0.02))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(asyncio.get_running_loop().time() + 0.01, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (door.ended("CANCELLED"), door.under_way()) == (1, 0)

    async def slow_to_go() -> None:
        """Its deadline passes while it is being cancelled."""
        with door.requests.track("Draw", "gan", RequestContext(deadline=monotonic() + 0.02)):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.shield(asyncio.sleep(0.05))

    task = asyncio.create_task(slow_to_go())
    await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert door.ended("CANCELLED") == 2


async def test_what_goes_wrong_inside_is_logged_and_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    for error in (ValueError("secret"), TimeoutError("not the deadline of the request")):
        with (
            pytest.raises(ServingError, match="internal error") as told,
            door.requests.track("Draw", "gan", RequestContext(request_id="r-17")),
        ):
            raise error
        assert (told.value.code, told.value.__cause__) == (Code.INTERNAL, error)
        assert "Draw of gan failed (request r-17)" in caplog.text
        assert str(error) in caplog.text
    assert (door.ended("INTERNAL"), door.under_way()) == (2, 0)


async def test_a_request_that_is_not_let_in_is_counted_and_leaves_nothing() -> None:
    door = Door()
    with (
        pytest.raises(ServingError, match="x-atelier-priority 'high' is not one of"),
        door.requests.track("Draw", "gan", RequestContext(priority="high")),
    ):
        pytest.fail("it was let in")
    assert (door.ended("INVALID_ARGUMENT"), door.under_way()) == (1, 0)
    await door.requests.close(0.0)  # waits for nobody
    with pytest.raises(ServingError, match="the gateway is stopping"):
        await door.wait()


async def test_what_is_cut_off_at_the_end_is_told_so() -> None:
    door = Door()
    task = asyncio.create_task(door.wait())
    await asyncio.sleep(0)
    await door.requests.close(0.01)
    with pytest.raises(ServingError, match="the gateway stopped before it was done") as error:
        await task
    assert error.value.code == Code.UNAVAILABLE
    assert (door.ended("UNAVAILABLE"), door.under_way()) == (1, 0)

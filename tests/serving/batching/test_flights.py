import asyncio
import math

import pytest

from serving.batching.flights import Flights, Tell
from serving.batching.ticket import Ticket
from serving.calls import Progress
from serving.errors import Code, ServingError


class Run:
    """A run that ends when it is told to."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.cancelled = 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def __call__(self, ticket: Ticket, tell: Tell) -> asyncio.Task[str]:
        self.tickets.append(ticket)
        self.tell = tell
        return asyncio.create_task(self._wait())

    async def _wait(self) -> str:
        try:
            return await self.answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def ticket(deadline: float = math.inf, weight: float = 1.0) -> Ticket:
    return Ticket(version=1, deadline=deadline, weight=weight, client=f"weight {weight}")


def board(
    flights: Flights[str], run: Run, ticket: Ticket, heard: list[int] | None = None
) -> asyncio.Task[str]:
    def listen(progress: Progress) -> None:
        assert heard is not None
        heard.append(progress.step)

    return asyncio.create_task(flights.fly("key", ticket, run, None if heard is None else listen))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_identical_requests_share_one_run_and_each_hears_of_it() -> None:
    flights, run = Flights[str](), Run()
    first_heard: list[int] = []
    later_heard: list[int] = []
    first = board(flights, run, ticket(), first_heard)
    await settle()
    run.tell(Progress(step=1, steps=3))
    others = [board(flights, run, ticket(), later_heard), board(flights, run, ticket())]
    await settle()
    run.tell(Progress(step=2, steps=3))
    run.answer.set_result("picture")
    assert await asyncio.gather(first, *others) == ["picture"] * 3
    assert len(run.tickets) == 1
    assert (first_heard, later_heard) == ([1, 2], [2])
    assert not flights.boards("key")


async def test_the_run_has_until_the_latest_deadline_and_the_best_priority() -> None:
    flights, run = Flights[str](), Run()
    tasks = [board(flights, run, t) for t in (ticket(3, 1), ticket(9, 1), ticket(5, 8))]
    await settle()
    (shared,) = run.tickets
    assert (shared.deadline, shared.weight, shared.client) == (9, 8, "weight 8")
    run.answer.set_result("")
    await asyncio.gather(*tasks)


async def test_each_waiter_may_go_and_the_run_ends_with_the_last() -> None:
    flights, run = Flights[str](), Run()
    tasks = [board(flights, run, ticket()) for _ in range(3)]
    await settle()
    for gone, task in enumerate(tasks, 1):
        task.cancel()
        await settle()
        assert task.cancelled()
        assert run.cancelled == (gone == 3)
    assert not flights.boards("key")


async def test_after_the_last_has_gone_the_next_begins_anew() -> None:
    flights, run, again = Flights[str](), Run(), Run()
    task = board(flights, run, ticket())
    await settle()
    task.cancel()
    later = board(flights, again, ticket())
    await settle()
    again.answer.set_result("anew")
    assert await later == "anew"
    assert run.cancelled == 1


async def test_a_run_that_is_refused_at_its_beginning_leaves_nothing_to_board() -> None:
    flights, run = Flights[str](), Run()

    def refuse(ticket: Ticket, tell: Tell) -> asyncio.Task[str]:
        raise ServingError(Code.RESOURCE_EXHAUSTED, "full")

    with pytest.raises(ServingError, match="full"):
        await flights.fly("key", ticket(), refuse, None)
    assert not flights.boards("key")
    later = board(flights, run, ticket())
    await settle()
    run.answer.set_result("picture")
    assert await later == "picture"


async def test_a_failure_is_an_error_for_each_of_them() -> None:
    flights, run = Flights[str](), Run()
    tasks = [board(flights, run, ticket()) for _ in range(3)]
    await settle()
    run.answer.set_exception(ServingError(Code.UNAVAILABLE, "gone", retry_after=2.0))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(set(map(id, errors))) == 3
    for error in errors:
        assert isinstance(error, ServingError)
        assert (error.code, error.message, error.retry_after) == (Code.UNAVAILABLE, "gone", 2.0)
    with pytest.raises(ServingError):
        await board(flights, run, ticket())

import asyncio
from collections import Counter
from time import perf_counter

import pytest

from benchmarks.load import Answer, Load, closed_loop, poisson
from benchmarks.mixes import Ask, alike

ASK = Ask(model="any", seed=0, class_id=0, count=2)
MIX = alike(ASK, classes=3)


def answer(start: float, end: float, outcome: str = "ok") -> Answer:
    return Answer(ask=ASK, start=start, end=end, outcome=outcome)


def test_a_request_counts_with_the_share_of_its_time_that_lies_in_the_window():
    load = Load(answers=[answer(8, 12), answer(11, 13), answer(19, 29), answer(2, 9)], begin=10, end=20)
    assert load.credit(lambda ask: ask.count) == pytest.approx(2 * (2 / 4 + 1 + 1 / 10) / 10)


def test_what_is_not_answered_counts_nothing_and_has_no_latency():
    load = Load(answers=[answer(11, 12, "refused"), answer(12, 14)], begin=10, end=20)
    assert load.credit(lambda ask: 1) == pytest.approx(0.1)
    assert load.latencies() == [2]
    assert [each.outcome for each in load.sent()] == ["refused", "ok"]


async def test_a_closed_loop_keeps_all_clients_busy_with_requests_of_their_own():
    under_way: set[int] = set()
    most = 0
    seeds: Counter[int] = Counter()

    async def send(ask: Ask) -> str:
        nonlocal most
        under_way.add(ask.seed)
        seeds[ask.seed] += 1
        most = max(most, len(under_way))
        await asyncio.sleep(0.002)
        under_way.discard(ask.seed)
        return "ok"

    load = await closed_loop(send, MIX, clients=5, warm_up=0.02, seconds=0.1)
    assert most == 5
    assert sorted(seeds) == list(range(len(load.answers)))
    assert set(seeds.values()) == {1}


async def test_a_closed_loop_goes_on_until_what_the_window_began_is_answered():
    async def send(ask: Ask) -> str:
        await asyncio.sleep(0.3 if ask.seed == 0 else 0.005)
        return "ok"

    load = await closed_loop(send, MIX, clients=2, warm_up=0.0, seconds=0.05)
    slow = next(each for each in load.answers if each.ask.seed == 0)
    others = [each for each in load.answers if each.start > load.end and each.end < slow.end]
    assert slow.end > load.end
    assert others, "the other client was still at it"


async def test_a_closed_loop_in_which_everything_fails_at_once_ends_and_says_so():
    sent = 0

    async def send(ask: Ask) -> str:
        nonlocal sent
        sent += 1
        return "refused"

    began = perf_counter()
    with pytest.raises(RuntimeError, match=r"none of \d+ requests succeeded: \{'refused': \d+\}"):
        await closed_loop(send, MIX, clients=3, warm_up=0.0, seconds=0.1)
    most = 3 * (1 + (perf_counter() - began) / 0.01)
    assert 3 <= sent <= most, "a client that is refused waits before it asks again"


async def test_failures_among_successes_are_counted_and_raise_nothing():
    async def send(ask: Ask) -> str:
        await asyncio.sleep(0.001)
        return "failed" if ask.seed % 2 else "ok"

    load = await closed_loop(send, MIX, clients=2, warm_up=0.0, seconds=0.05)
    assert {each.outcome for each in load.answers} == {"ok", "failed"}


async def test_arrivals_of_a_poisson_process_wait_for_nobody():
    async def send(ask: Ask) -> str:
        await asyncio.sleep(0.2)
        return "ok"

    load = await poisson(send, MIX, rate=400, warm_up=0.0, seconds=0.25)
    before_any_answer = [each for each in load.answers if each.start < load.begin + 0.2]
    assert len(before_any_answer) > 30

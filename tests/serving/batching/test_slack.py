import math

import pytest

from serving.batching.slack import Slack
from serving.batching.ticket import Ticket


def ticket(deadline: float, *, seconds: float, duration: float = 0.0) -> Ticket:
    return Ticket(version=1, deadline=deadline, expected_seconds=seconds, expected_duration=duration)


def test_each_waits_for_those_with_earlier_deadlines() -> None:
    slack = Slack([ticket(20.0, seconds=5.0), ticket(12.0, seconds=1.0)], now=10.0, rate=1.0)
    assert slack.before(12.0) == math.inf, "nobody has to be done before the first"
    assert slack.before(20.0) == pytest.approx(1.0)
    assert slack.before(math.inf) == pytest.approx(1.0), "the first has less to spare than the second"


def test_whoever_must_be_done_later_is_no_hindrance() -> None:
    slack = Slack([ticket(12.0, seconds=1.0), ticket(13.0, seconds=9.0)], now=10.0, rate=1.0)
    assert slack.before(13.0) == pytest.approx(1.0)
    assert slack.before(14.0) == pytest.approx(-7.0)
    assert not slack.enough


def test_what_is_left_counts_at_the_rate_of_the_machine_and_by_itself() -> None:
    several = ticket(12.0, seconds=3.0, duration=0.5)
    chain = ticket(20.0, seconds=1.0, duration=4.0)
    chain.done_duration = 1.0
    slack = Slack([several, chain], now=10.0, rate=2.0)
    assert slack.before(13.0) == pytest.approx(2.0 - 3.0 / 2)
    assert slack.before(30.0) == pytest.approx(min(0.5, 10.0 - (3.0 + 3.0) / 2))


def test_where_nothing_is_under_way_there_is_all_the_time() -> None:
    slack = Slack([], now=10.0, rate=1.0)
    assert slack.before(math.inf) == math.inf
    assert slack.enough

"""Limits of a key, on a clock of our own."""

import pytest

from serving.access.limits import Account, Bucket, Limits
from serving.errors import Code, ServingError, invalid


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_come_in_a_burst_and_then_at_the_rate():
    clock = Clock()
    account = Account("ci", Limits(requests_per_second=2, burst=3), clock)
    for _ in range(3):
        account.request()
    with pytest.raises(ServingError, match="'ci' may have 2 requests a second") as caught:
        account.request()
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert caught.value.retry_after == pytest.approx(0.5)
    clock.now = 0.5
    account.request()
    with pytest.raises(ServingError):
        account.request()


def test_over_a_long_time_a_bucket_gives_what_its_rate_says():
    bucket, taken = Bucket(rate=5, most=5, now=0), 0
    for tick in range(1000):
        taken += bucket.take(1, tick / 50) == 0
    assert taken == 5 * 20 + 5 - 1


def test_a_request_is_refused_whose_images_are_too_many_and_none_are_taken():
    clock = Clock()
    account = Account("ci", Limits(images_per_minute=60), clock)
    with account.work(40):
        pass
    with pytest.raises(ServingError) as caught, account.work(30):
        pass
    assert caught.value.retry_after == pytest.approx(10)
    clock.now = 10
    with account.work(30):
        pass


def test_one_request_for_more_than_a_minutes_images_is_never_served():
    account = Account("ci", Limits(images_per_minute=60), Clock())
    with pytest.raises(ServingError, match="asks for 61: ask for fewer") as caught, account.work(61):
        pass
    assert caught.value.retry_after is None


def test_images_that_were_refused_are_given_back_and_those_of_whoever_left_are_not():
    account = Account("ci", Limits(images_per_minute=60), Clock())
    for _ in range(5):
        with pytest.raises(ServingError, match="sampler"), account.work(60):
            raise invalid("sampler", "sampler 'x' is not one of these")
    with pytest.raises(TimeoutError), account.work(60):
        raise TimeoutError
    with pytest.raises(ServingError, match="images a minute"), account.work(1):
        pass


def test_only_so_many_requests_are_under_way_at_a_time():
    account = Account("ci", Limits(concurrency=2), Clock())
    with (
        account.work(1),
        account.work(1),
        pytest.raises(ServingError, match="2 requests at a time"),
        account.work(1),
    ):
        pass
    with account.work(1), account.work(1):
        pass


def test_new_limits_hold_at_once_and_leave_the_other_buckets_as_they_are():
    clock = Clock()
    account = Account("ci", Limits(requests_per_second=1, images_per_minute=10), clock)
    with account.work(10):
        pass
    account.adopt(Limits(requests_per_second=5, images_per_minute=10))
    for _ in range(5):
        account.request()
    with pytest.raises(ServingError), account.work(1):
        pass


def test_without_limits_anything_goes():
    account = Account("ci", Limits(), Clock())
    for _ in range(1000):
        account.request()
    with account.work(10**9):
        pass

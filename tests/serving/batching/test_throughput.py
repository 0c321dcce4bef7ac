"""What a busy machine gets done."""

import pytest

from serving.batching.throughput import Throughput


def test_the_share_is_what_is_done_of_the_time_of_all_instances() -> None:
    throughput = Throughput()
    now = 0.0
    for _ in range(400):
        now += 0.05
        throughput.ended(0.06, 2, now, more=True)
    assert throughput.share == pytest.approx(0.06 / 0.05 / 2, rel=0.01)


def test_time_without_work_does_not_count() -> None:
    throughput = Throughput()
    for second in range(100):
        throughput.ended(0.01, 1, float(second), more=False)
    assert throughput.share == Throughput().share


def test_what_was_long_ago_is_forgotten() -> None:
    throughput = Throughput()
    now = 0.0
    for seconds in (0.02, 0.09):
        for _ in range(200):
            now += 0.1
            throughput.ended(seconds, 1, now, more=True)
    assert throughput.share == pytest.approx(0.9, rel=0.05)

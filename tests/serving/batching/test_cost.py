import random

import pytest

from serving.batching.cost import BESIDES_THE_CALL, CostTable


def measured(
    seconds_by_rows: dict[int, float], times: int = 3, besides: float = BESIDES_THE_CALL
) -> CostTable:
    cost = CostTable(besides)
    for rows, seconds in seconds_by_rows.items():
        for _ in range(times):
            cost.observe(rows, seconds)
    return cost


def test_while_nothing_is_known_a_batch_takes_all_there_is() -> None:
    cost = CostTable()
    assert cost.best(64) == cost.full(64) == 64
    assert cost.seconds(10) == cost.row_seconds() == cost.call_seconds() == 0


def test_the_smallest_batch_near_the_best_throughput_is_taken() -> None:
    cost = measured({1: 5.4e-3, 2: 9.2e-3, 4: 18e-3, 8: 35.8e-3, 16: 72e-3, 64: 339e-3})
    assert cost.best(64) == 4
    assert cost.enough(64) == 2, "good enough where there are few rows"
    assert cost.best(3) == 3
    assert cost.settled


def test_the_more_a_batch_takes_besides_its_call_the_larger_it_is_and_so_are_those_of_its_heir() -> None:
    seconds = {rows: 1e-3 * rows for rows in (1, 2, 4, 8, 16, 32, 64)}
    little, much = measured(seconds, times=25, besides=0.3e-3), measured(seconds, times=25, besides=1e-3)
    assert little.full(64) == little.heir().full(64) == 8
    assert much.full(64) == much.heir().full(64) == 16


def test_while_larger_batches_gain_twice_as_many_rows_are_tried() -> None:
    cost = measured({1: 1e-3, 2: 1.1e-3, 4: 1.2e-3})
    assert not cost.settled
    assert cost.best(64) == 8
    assert cost.best(6) == 6
    assert cost.full(64) == 4


def test_a_size_that_looked_slow_is_measured_again_now_and_then() -> None:
    cost = measured({1: 1e-3, 2: 1.5e-3, 4: 2e-3, 8: 9e-3})
    sizes = [cost.best(64) for _ in range(200)]
    assert set(sizes) == {4, 8}
    assert sizes.count(8) <= 4


def test_between_the_sizes_that_were_seen_costs_are_linear() -> None:
    cost = measured({2: 2.0, 4: 3.0})
    assert cost.seconds(3) == pytest.approx(2.5)
    assert cost.seconds(8) == pytest.approx(6.0)
    assert cost.seconds(1) == pytest.approx(2.0), "a smaller call is not known to be quicker"


def test_a_call_that_met_other_work_does_not_count_and_a_slower_machine_does() -> None:
    cost = measured({4: 1.0}, times=9)
    cost.observe(4, 100.0)
    assert cost.seconds(4) == 1.0
    for _ in range(5):
        cost.observe(4, 3.0)
    assert cost.seconds(4) == pytest.approx(3.0, rel=0.1)


def test_what_fits_a_time_is_the_largest_batch_that_takes_no_longer() -> None:
    cost = measured({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})
    assert cost.within(4.0, 8) == 4
    assert cost.within(100.0, 8) == 8
    assert cost.within(0.5, 8) == 1


def test_rows_by_themselves_take_as_few_batches_as_can_be_on_all_instances() -> None:
    cost = measured({1: 5e-3, 4: 8e-3, 8: 16e-3})
    assert cost.duration(1) == pytest.approx(5e-3)
    assert cost.duration(17) == pytest.approx(37e-3)
    assert cost.duration(16, slots=2) == pytest.approx(16e-3)


def test_no_batch_keeps_an_instance_for_long_whatever_it_gains() -> None:
    cost = measured({1: 15e-3, 2: 16e-3, 4: 30e-3, 8: 58e-3, 16: 100e-3, 32: 190e-3})
    assert cost.best(64) == 4 or cost.seconds(cost.best(64)) <= 60e-3
    slow = measured({1: 0.3, 2: 0.5, 4: 0.9, 8: 1.3, 16: 2.0})
    assert slow.full(64) == 4
    growing = measured({1: 10e-3, 2: 18e-3, 4: 34e-3})
    assert growing.best(64) == 4, "twice as many would take too long"


def test_an_heir_expects_the_same_at_the_present_pace_however_many_were_before_it():
    table = CostTable()
    table.observe(16, 30.0)  # seen once: not known well, and not passed on
    for pace in (1, 3):
        for _ in range(12):
            for rows in (1, 2, 4, 8):
                table.observe(rows, pace * (0.001 + 0.002 * rows))
    expected = [table.seconds(rows) for rows in (1, 2, 4, 8)]
    assert [table.heir().seconds(rows) for rows in (1, 2, 4, 8)] == pytest.approx(expected)
    assert table.heir().best(64) == table.best(64)
    assert table.heir().seconds(16) < 1
    heir = table
    for generation in range(1000):
        heir = heir.heir()
        heir.observe(2, expected[1] * (0.7 if generation % 2 else 1.4))
    assert [heir.seconds(rows) for rows in (1, 2, 4, 8)] == pytest.approx(expected, rel=0.5)


def test_an_heir_believes_what_it_sees_after_a_few_calls():
    table = CostTable()
    for _ in range(9):
        table.observe(4, 0.001)
    heir = table.heir()
    for _ in range(4):
        heir.observe(4, 0.010)
    assert heir.seconds(4) >= 0.005


@pytest.mark.parametrize("seed", range(8))
def test_on_a_flat_curve_the_size_of_batches_does_not_wander_with_the_noise(seed: int) -> None:
    """Rows take 1 ms: with what a batch takes besides, 7 of them reach 97 % of what 24 do."""
    noise = random.Random(seed)
    table = CostTable()
    for rows in (1, 2, 4, 8, 16, 32):
        for _ in range(3):
            table.observe(rows, 0.001 * rows)
    found = []
    for call in range(4000):
        rows = noise.randint(1, 24)
        table.observe(rows, 0.001 * rows * noise.lognormvariate(0, 0.1))
        if call > 500:
            found.append(table.full(64))
    assert 4 <= sorted(found)[len(found) // 20] <= sorted(found)[-len(found) // 20] <= 15


@pytest.mark.parametrize("seed", range(4))
def test_the_noise_of_many_calls_does_not_add_up(seed: int) -> None:
    """A size that was seen long ago costs about what it did, whatever noisy calls of others say."""
    noise = random.Random(seed)
    table = measured({2: 0.002, 4: 0.004, 64: 0.064})
    for _ in range(20_000):
        rows = noise.choice((2, 4))
        table.observe(rows, 0.001 * rows * noise.lognormvariate(0, 0.3))
    assert 1 / 3 < table.seconds(64) / 0.064 < 3

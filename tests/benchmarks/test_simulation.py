"""The simulated machine: closed forms where there are some, and the gateway's own policy everywhere."""

import time

import pytest

from benchmarks.figures import figures
from benchmarks.load import closed_loop, poisson
from benchmarks.mixes import Ask, alike, hurried
from benchmarks.peers.atelier import serve
from benchmarks.simulate import Trial, call_seconds, capacity, predict
from benchmarks.simulation import Costs, Gateway, simulate
from serving.batching import engine
from serving.catalog import build, scan

ASK = Ask(model="tiny_gaussian", seed=0, class_id=0, steps=10)
MIX = alike(ASK, classes=3)


@pytest.fixture
def manifest(tiny_repository):
    return build(scan(tiny_repository)).models["tiny_gaussian"].denoiser


def test_one_client_waits_for_its_calls_and_what_the_gateway_adds(manifest):
    costs = Costs(
        call_seconds={1: 0.02},
        instances=1,
        step_work=0.003,
        step_delay=0.002,
        request_work=0.06,
        request_delay=0.04,
    )
    got = figures(predict(manifest, costs, MIX, Trial(name="", clients=1), 60))
    assert got["p50"] == got["p95"] == pytest.approx(10 * 0.022 + 0.1)
    assert got["requests"] == pytest.approx(1 / 0.32, rel=0.01)


def test_requests_that_share_a_call_take_their_steps_one_after_the_other(manifest):
    costs = Costs(call_seconds={1: 0.02, 2: 0.021}, instances=1, step_work=0.003)
    got = figures(predict(manifest, costs, MIX, Trial(name="", clients=4), 60))
    assert got["rows"] == pytest.approx(2 / (0.021 + 0.003), rel=0.05)


@pytest.mark.parametrize("instances", [1, 3])
def test_throughput_is_what_the_best_batch_gives_on_every_instance(manifest, instances: int):
    costs = Costs(call_seconds={1: 0.01, 4: 0.016, 8: 0.03}, instances=instances)
    got = figures(predict(manifest, costs, MIX, Trial(name="", clients=32 * instances), 60))
    best = instances * 4 / 0.016
    assert 0.9 * best < got["rows"] <= 1.08 * best


def test_an_hour_takes_no_hour_and_comes_out_the_same_each_time(manifest):
    costs, began = Costs(call_seconds={1: 0.05, 8: 0.1}, instances=2), time.monotonic()
    trial = Trial(name="", rate=0.5)
    one, other = (figures(predict(manifest, costs, MIX, trial, 3600)) for _ in range(2))
    assert one == other
    assert one["requests"] == pytest.approx(0.5, rel=0.1)
    assert time.monotonic() - began < 1800


def test_what_cannot_be_in_time_is_refused_by_the_door_itself(manifest):
    costs = Costs(call_seconds={1: 0.01}, instances=1)

    async def run():
        gateway = Gateway(manifest, costs)
        await gateway.start()
        return await poisson(gateway.send, hurried(MIX, 1.0), rate=30, warm_up=5, seconds=60)

    outcomes = [answer.outcome for answer in simulate(run).sent()]
    assert outcomes.count("refused") > len(outcomes) / 3
    assert outcomes.count("ok") > len(outcomes) / 10


@pytest.mark.parametrize("times", [1.5, 3])
def test_more_than_the_gateway_can_do_takes_nothing_from_what_it_can(manifest, times: float):
    """Everybody is pressed for time then, and batches are full all the same."""
    costs = Costs(call_seconds={1: 0.004, 4: 0.01, 8: 0.018}, instances=2)
    full = predict(manifest, costs, MIX, Trial(name="", clients=32), 20).credit(lambda ask: 1)
    trial = Trial(name="", rate=times * full)
    assert predict(manifest, costs, hurried(MIX, 2.0), trial, 20).credit(lambda ask: 1) >= 0.97 * full


def test_latency_grows_with_what_is_used(manifest):
    rows = capacity(manifest, Costs(call_seconds={1: 0.01, 8: 0.04}, instances=2), ASK, 60)
    assert [row["used"] for row in rows] == sorted(row["used"] for row in rows)
    assert rows[-1]["p95"] > rows[0]["p95"] > 0.1


def test_the_real_clock_is_back_when_a_simulation_has_failed(manifest):
    async def fail() -> None:
        await closed_loop(None, MIX, clients=1, warm_up=0, seconds=1)

    with pytest.raises(ExceptionGroup):
        simulate(fail)
    assert engine.monotonic is time.monotonic


async def test_calls_of_a_live_gateway_are_timed_by_their_rows(tiny_repository):
    async with serve(tiny_repository, "--instances", "2", "--threads", "1") as gateway:
        found = await call_seconds(gateway, "tiny_gaussian", "tiny_gaussian", 2, 0.5)
    assert list(found) == sorted(found)
    assert max(found) >= 8
    assert all(seconds > 0 for seconds in found.values())

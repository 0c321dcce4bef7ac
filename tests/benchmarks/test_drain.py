"""Restarts under load, a few of the two hundred: `python -m benchmarks.drain` does them all."""

from pathlib import Path

from benchmarks.drain import Plan, drain


async def test_gateways_that_are_restarted_under_load_lose_nothing(tiny_repository: Path):
    plan = Plan(
        repository=tiny_repository,
        models=("tiny_gan", "tiny_gaussian"),
        rounds=3,
        clients=8,
        drain_delay=0.6,
        period=0.05,
    )
    outcome = await drain(plan, lambda words: None)
    assert outcome.failed == {}
    assert outcome.answered > 100


async def test_without_a_drain_what_is_lost_is_seen(tiny_repository: Path):
    """So that the test above can fail: connections that clients keep are cut when a gateway just stops."""
    plan = Plan(
        repository=tiny_repository, models=("tiny_gan",), rounds=2, clients=16, drain_delay=0.0, period=0.5
    )
    assert (await drain(plan, lambda words: None)).failed

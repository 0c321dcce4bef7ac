"""A gateway that counts as often as it is told."""

from pathlib import Path

import pytest

from benchmarks.counting import count
from benchmarks.mixes import Ask
from benchmarks.peers.atelier import Atelier, serve

LABELS = {"method": "GenerateImages", "task": "generate", "model": "tiny_gan", "version": "2", "code": "OK"}


def counted(gateway: Atelier, name: str, **labels: str) -> float:
    return gateway.metrics().get((name, tuple(sorted(labels.items()))), 0.0)


async def test_everything_is_counted_so_many_times_and_nothing_within_it_again(tiny_repository: Path):
    async with serve(tiny_repository, module="benchmarks.counting") as gateway:
        so_far = 0.0
        for times in (1, 0, 20):
            count(gateway.process_id, times)
            assert await gateway.send(Ask(model="tiny_gan", seed=times, class_id=0)) == "ok"
            so_far += times
            assert counted(gateway, "atelier_requests_total", **LABELS) == so_far
            assert counted(gateway, "atelier_rows_total", graph="tiny_gan") == pytest.approx(so_far)
            assert counted(gateway, "atelier_call_seconds_count", graph="tiny_gan") == so_far

"""The gateway's metrics of a GPU, read from the real driver."""

from __future__ import annotations

from serving.observing.gpu import GpuCollector


def test_a_real_gpu_is_up_and_uses_less_memory_than_it_has() -> None:
    collector = GpuCollector()
    collector.start()
    try:
        assert collector.wait(30)
        found = {family.name: [sample.value for sample in family.samples] for family in collector.collect()}
    finally:
        collector.stop()
    assert set(found["atelier_gpu_up"]) == {1.0}
    used, total = found["atelier_gpu_memory_used_bytes"], found["atelier_gpu_memory_total_bytes"]
    assert all(0 < one <= all_of_it for one, all_of_it in zip(used, total, strict=True))

from prometheus_client import CollectorRegistry

from serving.observing.metrics import Metrics
from serving.pb import image_generation_pb2 as pb
from serving.requests.cache import ResultCache


def answer(size: int) -> pb.GenerateImagesResponse:
    response = pb.GenerateImagesResponse(images=[pb.Image(data=bytes(size))], run=pb.RunInfo(seed=size))
    response.run.compute_time.FromMilliseconds(5)
    return response


def test_what_was_asked_for_longest_ago_makes_room_and_the_bytes_stay_bounded() -> None:
    registry = CollectorRegistry()
    cache = ResultCache(20_000, Metrics(registry))
    for key in range(10):
        cache.put(key, answer(4000))
        assert cache.get(0, "model") is not None
        assert (registry.get_sample_value("atelier_cache_bytes") or 0) <= 20_000
    assert [key for key in range(10) if cache.get(key, "model") is not None] == [0, 8, 9]
    assert registry.get_sample_value("atelier_cache_hits_total", {"model": "model"}) == 13
    assert registry.get_sample_value("atelier_cache_misses_total", {"model": "model"}) == 7


def test_an_answer_that_was_kept_took_no_time() -> None:
    cache = ResultCache(10_000, Metrics(CollectorRegistry()))
    cache.put("key", answer(7))
    found = cache.get("key", "model")
    assert found is not None
    assert found.run.seed == 7
    assert not found.run.HasField("compute_time")
    assert found.images == answer(7).images


def test_what_is_larger_than_the_cache_is_not_kept_and_without_bytes_nothing_is() -> None:
    for size in (0, 5000):
        cache = ResultCache(size, Metrics(CollectorRegistry()))
        cache.put("key", answer(5000))
        assert cache.get("key", "model") is None

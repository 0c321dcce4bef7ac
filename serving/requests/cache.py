"""Results that are kept, within a bound on their bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from serving.observing.metrics import Metrics
from serving.pb import image_generation_pb2 as pb

_OVERHEAD = 1024


class ResultCache:
    """Answers by what was asked; those that were not asked for longest make room. Bounded by bytes."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._bytes = 0
        self._answers: OrderedDict[Hashable, pb.GenerateImagesResponse] = OrderedDict()

    def get(self, key: Hashable, model: str) -> pb.GenerateImagesResponse | None:
        """The answer, not to be changed, if it is there."""
        if not self._max_bytes:
            return None
        answer = self._answers.get(key)
        if answer is None:
            self._metrics.cache_misses.labels(model).inc()
            return None
        self._answers.move_to_end(key)
        self._metrics.cache_hits.labels(model).inc()
        return answer

    def put(self, key: Hashable, answer: pb.GenerateImagesResponse) -> None:
        """Keeps an answer. Whoever gets it from here waits for nothing: it says so."""
        if not self._max_bytes:
            return
        kept = pb.GenerateImagesResponse(images=answer.images, run=answer.run)
        kept.run.ClearField("queue_time")
        kept.run.ClearField("compute_time")
        if _size(kept) > self._max_bytes or key in self._answers:
            return
        self._answers[key] = kept
        self._bytes += _size(kept)
        while self._bytes > self._max_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= _size(oldest)
        self._metrics.cache_bytes.set(self._bytes)


def _size(answer: pb.GenerateImagesResponse) -> int:
    return answer.ByteSize() + _OVERHEAD

"""BentoML's side: a service that samples whole requests."""

from __future__ import annotations

import base64
import os

import bentoml
import numpy as np
from pydantic import BaseModel

from benchmarks.peers.assets.whole import Whole, rows_of

BATCH = int(os.environ["BENCH_BATCH"])


class Request(BaseModel):
    """A request for images."""

    seed: int
    count: int
    class_id: int
    steps: int
    sampler_name: str
    guidance_scale: float


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), traffic={"timeout": 300})
class WholeService:
    """JSON in, pixels out: whole requests, joined by the adaptive batcher where it is on."""

    def __init__(self) -> None:
        self._whole = Whole.from_environment()

    @bentoml.api(
        batchable=BATCH > 1,
        max_batch_size=max(BATCH, 2),
        max_latency_ms=int(1000 * float(os.environ["BENCH_LATENCY"])),
    )
    def many(self, requests: list[Request]) -> list[str]:
        """Raw pixels of each request, in base64."""
        rows = [rows_of(**request.model_dump()) for request in requests]
        images = self._whole.images(np.concatenate(rows))
        splits = np.cumsum([len(each) for each in rows])[:-1]
        return [base64.b64encode(part.tobytes()).decode() for part in np.split(images, splits)]

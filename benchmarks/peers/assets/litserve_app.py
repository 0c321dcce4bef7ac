"""LitServe's side: an API that samples whole requests. Run with the port as its argument.

Annotations have to be objects here, not strings: LitServe makes the request's schema of them.
"""

import os
import sys
from typing import Any

import litserve
import numpy as np
from fastapi import Response

from benchmarks.peers.assets.whole import Rows, Whole, rows_of


class WholeAPI(litserve.LitAPI):
    """JSON in, raw pixels out."""

    def setup(self, device: str) -> None:
        self._whole = Whole.from_environment()

    def decode_request(self, request: dict[str, Any]) -> Rows:
        return rows_of(**request)

    def batch(self, inputs: list[Rows]) -> tuple[Rows, list[int]]:
        return np.concatenate(inputs), np.cumsum([len(rows) for rows in inputs])[:-1].tolist()

    def predict(self, batch: Any) -> Any:
        if isinstance(batch, tuple):
            rows, splits = batch
            return np.split(self._whole.images(rows), splits)
        return self._whole.images(batch)

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Response:
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    batch, wait = int(os.environ["BENCH_BATCH"]), float(os.environ["BENCH_WAIT"])
    api = WholeAPI(max_batch_size=batch, batch_timeout=wait)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        devices=1,
        workers_per_device=int(os.environ["BENCH_WORKERS"]),
        timeout=300,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")

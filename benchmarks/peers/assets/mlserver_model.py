"""MLServer's side: a runtime that samples whole requests."""

from __future__ import annotations

from benchmarks.peers.assets.whole import Whole
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class WholeModel(MLModel):
    """Rows in, pixels out."""

    async def load(self) -> bool:
        self._whole = Whole.from_environment()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        images = NumpyCodec.encode_output("images", self._whole.images(rows))
        return InferenceResponse(model_name=self.name, outputs=[images])

"""MLServer's side: a runtime that samples whole requests."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

# MLServer and tritonclient register the same messages, which protobuf refuses. The manifest needs but one
# module of tritonclient: a package that runs no `__init__` gives it that and nothing else.
_grpc = ModuleType("tritonclient.grpc")
_spec = importlib.util.find_spec("tritonclient")
assert _spec is not None
_grpc.__path__ = [f"{place}/grpc" for place in _spec.submodule_search_locations or ()]
sys.modules["tritonclient.grpc"] = _grpc

from benchmarks.peers.assets.whole import Whole  # noqa: E402


class WholeModel(MLModel):
    """Rows in, pixels out."""

    async def load(self) -> bool:
        self._whole = Whole.from_environment()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        images = NumpyCodec.encode_output("images", self._whole.images(rows))
        return InferenceResponse(model_name=self.name, outputs=[images])

"""Client of the Open Inference Protocol v2 over gRPC, which MLServer and Triton both speak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from benchmarks.mixes import Ask
from benchmarks.peers.assets.whole import rows_of

_DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}


class Inference:
    """A model behind a server of the protocol."""

    process_id: int | None = None
    """Neither of the two does anything by itself."""

    def __init__(self, channel: grpc.aio.Channel, model: str) -> None:
        self._stub: Any = GRPCInferenceServiceStub(channel)
        self._model = model

    async def send(self, ask: Ask) -> str:
        """Sends a request as a tensor with a row for each image."""
        rows = rows_of(ask.seed, ask.count, ask.class_id, ask.steps, ask.sampler, ask.guidance_scale)
        return await self.send_tensors({"rows": rows}, ask)

    async def send_tensors(self, tensors: Mapping[str, NDArray[Any]], ask: Ask) -> str:
        """Sends inputs as they are."""
        try:
            answer = await self._stub.ModelInfer(self.request(tensors), timeout=ask.timeout)
        except grpc.aio.AioRpcError as error:
            return "late" if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED else "failed"
        return "ok" if answer.outputs[0].shape[0] == ask.count else "failed"

    async def infer(self, tensors: Mapping[str, NDArray[Any]]) -> bytes:
        """The bytes of the first output."""
        answer = await self._stub.ModelInfer(self.request(tensors), timeout=60)
        raw = answer.raw_output_contents
        return bytes(raw[0] if raw else answer.outputs[0].contents.bytes_contents[0])

    async def ready(self) -> bool:
        """Whether the model can be asked."""
        try:
            answer = await self._stub.ModelReady(service_pb2.ModelReadyRequest(name=self._model), timeout=5)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    def request(self, tensors: Mapping[str, NDArray[Any]]) -> Any:
        """The message of inputs by name."""
        request = service_pb2.ModelInferRequest(model_name=self._model)
        for name, array in tensors.items():
            request.inputs.add(name=name, datatype=_DATATYPES[str(array.dtype)], shape=array.shape)
            request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
        return request

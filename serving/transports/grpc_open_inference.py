"""The Open Inference Protocol over gRPC, as Triton has it: translates, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from serving.errors import Code, ServingError, invalid
from serving.oip.inference import OpenInference
from serving.oip.messages import InferAnswer
from serving.oip.protobuf import read_request, write_answer
from serving.requests.context import RequestContext
from serving.transports.grpc_calls import abort, request_context
from serving.transports.off_loop import off_loop

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
"""The protocol's service."""

_STREAM_AHEAD = 32  # requests of one stream that are read before the first of them is answered

NotReady = Callable[[], str | None]
Function = Callable[[Any, RequestContext], Awaitable[Any]]


def handlers(inference: OpenInference, not_ready: NotReady) -> grpc.GenericRpcHandler:
    """Handlers of every RPC of the service; what has no place here answers UNIMPLEMENTED."""
    functions = _functions(inference, not_ready)
    methods = {
        method.name: _unary(
            method.name,
            getattr(pb, method.input_type.name),
            functions.get(method.name, _unimplemented(method.name)),
        )
        for method in SERVICE.methods
    }
    # Tensors are taken and given as bytes: large ones are read and written off the event loop.
    methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(partial(_infer, inference))
    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        partial(_stream, inference), response_serializer=pb.ModelStreamInferResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)


def _functions(inference: OpenInference, not_ready: NotReady) -> Mapping[str, Function]:
    """What answers each RPC."""
    memory = inference.shared_memory

    async def server_live(_: Any, __: RequestContext) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(_: Any, __: RequestContext) -> Any:
        return pb.ServerReadyResponse(ready=not_ready() is None)

    async def server_metadata(_: Any, __: RequestContext) -> Any:
        return inference.server_metadata()

    async def model_ready(request: Any, _: RequestContext) -> Any:
        return pb.ModelReadyResponse(ready=inference.model_ready(request.name, request.version))

    async def model_metadata(request: Any, _: RequestContext) -> Any:
        return inference.model_metadata(request.name, request.version)

    async def model_config(request: Any, _: RequestContext) -> Any:
        return pb.ModelConfigResponse(config=inference.model_config(request.name, request.version))

    async def model_statistics(request: Any, _: RequestContext) -> Any:
        return inference.model_statistics(request.name, request.version)

    async def repository_index(request: Any, _: RequestContext) -> Any:
        return inference.repository_index(request.repository_name, request.ready)

    async def shared_memory_status(request: Any, _: RequestContext) -> Any:
        answer = pb.SystemSharedMemoryStatusResponse()
        for name, region in memory.status(request.name).items():
            answer.regions[name].name = region.name
            answer.regions[name].key = region.key
            answer.regions[name].offset = region.offset
            answer.regions[name].byte_size = region.byte_size
        return answer

    async def shared_memory_register(request: Any, _: RequestContext) -> Any:
        memory.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def shared_memory_unregister(request: Any, _: RequestContext) -> Any:
        memory.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def repository_load(request: Any, asked: RequestContext) -> Any:
        await inference.load_model(request.repository_name, request.model_name, request.parameters, asked)
        return pb.RepositoryModelLoadResponse()

    async def repository_unload(request: Any, asked: RequestContext) -> Any:
        await inference.unload_model(request.repository_name, request.model_name, request.parameters, asked)
        return pb.RepositoryModelUnloadResponse()

    return {
        "RepositoryModelLoad": repository_load,
        "RepositoryModelUnload": repository_unload,
        "ServerLive": server_live,
        "ServerReady": server_ready,
        "ServerMetadata": server_metadata,
        "ModelReady": model_ready,
        "ModelMetadata": model_metadata,
        "ModelConfig": model_config,
        "ModelStatistics": model_statistics,
        "RepositoryIndex": repository_index,
        "SystemSharedMemoryStatus": shared_memory_status,
        "SystemSharedMemoryRegister": shared_memory_register,
        "SystemSharedMemoryUnregister": shared_memory_unregister,
    }


def _unary(rpc: str, request_type: Any, function: Function) -> grpc.RpcMethodHandler[Any, Any]:
    async def handle(request: Any, context: Any) -> Any:
        asked = request_context(context)
        try:
            return await function(request, asked)
        except Exception as error:
            await abort(context, asked, rpc, error)
            raise

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=request_type.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _unimplemented(rpc: str) -> Function:
    async def refuse(_: Any, __: RequestContext) -> Any:
        raise ServingError(Code.UNIMPLEMENTED, f"{rpc} is Triton's own and not of this gateway")

    return refuse


async def _infer(inference: OpenInference, content: bytes, context: Any) -> bytes:
    asked = request_context(context)
    try:
        request = await off_loop(partial(_read, content), len(content))
        answer = await inference.infer(request, asked)
        written: bytes = await off_loop(partial(_write, answer), _size(answer))
        return written
    except Exception as error:
        await abort(context, asked, "ModelInfer", error)
        raise


async def _stream(
    inference: OpenInference, contents: AsyncIterator[bytes], context: Any
) -> AsyncIterator[Any]:
    """Answers in the order of the requests, which are computed side by side; an error is one's own."""
    asked = request_context(context)
    waiting: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue(_STREAM_AHEAD)
    tasks: set[asyncio.Task[Any]] = set()

    async def read() -> None:
        try:
            async for content in contents:
                task = asyncio.create_task(_answer(inference, content, asked))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await waiting.put(task)
        except Exception:
            await waiting.put(None)
            raise
        await waiting.put(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await waiting.get()) is not None:
            yield await task
        await reader
    except Exception as error:
        await abort(context, asked, "ModelStreamInfer", error)
    finally:
        ending = [reader, *tasks]
        for each in ending:
            each.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def _answer(inference: OpenInference, content: bytes, asked: RequestContext) -> Any:
    answer = pb.ModelStreamInferResponse()
    try:
        request = await off_loop(partial(_read, content), len(content))
    except ServingError as error:
        answer.error_message = error.message
        return answer
    try:
        found = await inference.infer(request, asked)
    except ServingError as error:
        answer.error_message = error.message
        answer.infer_response.id = request.request_id
    else:
        answer.infer_response.CopyFrom(await off_loop(partial(write_answer, found), _size(found)))
        answer.infer_response.parameters["triton_final_response"].bool_param = True
    return answer


def _read(content: bytes) -> Any:
    try:
        return read_request(pb.ModelInferRequest.FromString(content))
    except DecodeError as error:
        raise invalid("request", "the request is no ModelInferRequest message") from error


def _write(answer: InferAnswer) -> bytes:
    written: bytes = write_answer(answer).SerializeToString()
    return written


def _size(answer: InferAnswer) -> int:
    return sum(output.array.nbytes for output in answer.outputs if output.array is not None)

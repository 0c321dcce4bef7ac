"""The protocol over both transports, where Triton has no say: deadlines, priorities, rights, going away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from serving.manifest import from_config
from serving.pb.image_generation_pb2 import GenerateImagesRequest
from serving.process.ports import listen
from serving.service import RequestContext, Service
from serving.settings import Settings
from serving.transports.grpc_api import GrpcServer
from serving.transports.grpc_open_inference import SERVICE
from serving.transports.http_api import create_app
from serving.transports.http_server import run_http

GAN = "tiny_gan"
ELSEWHERE = (("x-forwarded-for", "203.0.113.7"),)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A gateway under test, over both transports."""

    service: Service
    channel: grpc.aio.Channel
    stub: Any
    http: httpx.AsyncClient
    registry: CollectorRegistry


@pytest.fixture
def serve(open_tiny: Any) -> Callable[..., Any]:
    """Opens a gateway on the tiny models, with settings of one's own."""

    @asynccontextmanager
    async def running(**values: Any) -> AsyncIterator[Running]:
        registry = CollectorRegistry()
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(open_tiny(registry, **values))
            settings = Settings(grpc_port=0, shutdown_grace=1)
            server = GrpcServer(service, settings, service.not_ready_reason)
            stopping = asyncio.Event()
            task = asyncio.create_task(server.run(stopping))
            listener = stack.enter_context(listen("127.0.0.1", 0, "--http-port"))
            app = create_app(service, settings, registry, service.not_ready_reason)
            web = asyncio.create_task(run_http(app, listener, settings, stopping))
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=base, timeout=30))
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
            await stack.enter_async_context(channel)
            try:
                yield Running(
                    service=service,
                    channel=channel,
                    stub=GRPCInferenceServiceStub(channel),
                    http=http,
                    registry=registry,
                )
            finally:
                stopping.set()
                await asyncio.gather(task, web)

    return running


@pytest.fixture
async def running(serve: Callable[..., Any]) -> AsyncIterator[Running]:
    async with serve(instances=1) as opened:
        yield opened


def request(rows: int = 1, **fields: Any) -> Any:
    """A request for the generator."""
    message = pb.ModelInferRequest(model_name=GAN, **fields)
    arrays = {"latent": np.ones((rows, 4), np.float32), "class_id": np.zeros((rows, 1), np.int64)}
    for (name, array), datatype in zip(arrays.items(), ("FP32", "INT64"), strict=True):
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def hold(service: Service) -> asyncio.Event:
    """Keeps the backend from answering until the event is set."""
    let_go = asyncio.Event()
    backend = service.open_inference._graphs._backend
    infer = backend.infer

    async def held(*arguments: Any, **how: Any) -> Any:
        await let_go.wait()
        return await infer(*arguments, **how)

    backend.infer = held
    return let_go


async def code(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return str(caught.value.code().name)


async def test_every_rpc_of_the_service_is_answered_or_said_to_be_elsewhere(running: Running):
    missing, said = set(), set()
    for method in SERVICE.methods:
        if method.name == "ModelStreamInfer":
            continue
        try:
            await getattr(running.stub, method.name)(getattr(pb, method.input_type.name)())
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                missing.add(method.name)
                said.add(error.details())
    assert all("this gateway" in words or "shared memory is off" in words for words in said)
    ours = {f"SystemSharedMemory{verb}" for verb in ("Status", "Register", "Unregister")}
    theirs = {f"CudaSharedMemory{verb}" for verb in ("Status", "Register", "Unregister")}
    assert missing == ours | theirs | {"TraceSetting", "LogSettings"}


async def test_typed_contents_are_taken_as_well(running: Running):
    typed = pb.ModelInferRequest(model_name=GAN)
    typed.inputs.add(name="latent", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1.0] * 4)
    typed.inputs.add(name="class_id", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(0)
    raw = await running.stub.ModelInfer(request())
    assert (await running.stub.ModelInfer(typed)).raw_output_contents == raw.raw_output_contents
    typed.raw_input_contents.append(b"both")
    assert await code(running.stub.ModelInfer(typed)) == "INVALID_ARGUMENT"
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.CopyFrom(pb.InferTensorContents(fp64_contents=[1.0] * 4))
    assert await code(running.stub.ModelInfer(typed)) == "INVALID_ARGUMENT"
    typed.inputs[0].ClearField("contents")
    assert await code(running.stub.ModelInfer(typed)) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("class_id", [-1, 3, 2**62])
async def test_a_class_that_is_not_there_is_refused_by_name(running: Running, class_id: int):
    asked = request()
    asked.raw_input_contents[1] = np.full((1, 1), class_id, np.int64).tobytes()
    with pytest.raises(grpc.aio.AioRpcError, match=r"'class_id'.*0 to 2") as caught:
        await running.stub.ModelInfer(asked)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_sizes_that_the_graph_cannot_take_are_refused(running: Running):
    for shape in ((1, 3, 6, 8), (1, 3, 0, 8), (1, 3, -4, 8), (1, 3, 2**40, 2**40)):
        asked = pb.ModelInferRequest(model_name="tiny_translator_a_to_b")
        asked.inputs.add(name="image", datatype="FP32", shape=shape)
        asked.raw_input_contents.append(bytes(4 * 3 * 6 * 8))
        with pytest.raises(grpc.aio.AioRpcError, match="'image'") as caught:
            await running.stub.ModelInfer(asked)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_no_message_is_refused(running: Running):
    infer = running.channel.unary_unary(f"/{SERVICE.full_name}/ModelInfer")
    assert await code(infer(b"\xff\xff\xff")) == "INVALID_ARGUMENT"
    stream = running.channel.stream_stream(f"/{SERVICE.full_name}/ModelStreamInfer")
    contents = [b"\xff\xff\xff", request(id="next").SerializeToString()]
    found = [pb.ModelStreamInferResponse.FromString(each) async for each in stream(iter(contents))]
    assert "ModelInferRequest" in found[0].error_message
    assert found[1].infer_response.id == "next"


async def test_the_timeout_of_a_request_is_its_deadline(running: Running):
    let_go = hold(running.service)
    asked = request()
    asked.parameters["timeout"].int64_param = 50_000
    assert await code(running.stub.ModelInfer(asked)) == "DEADLINE_EXCEEDED"
    let_go.set()
    assert await running.stub.ModelInfer(asked, timeout=60)


async def test_a_full_gateway_refuses_and_counts_it(serve: Callable[..., Any]):
    async with serve(instances=1, max_pending_rows=4) as running:
        let_go = hold(running.service)
        first = asyncio.ensure_future(running.stub.ModelInfer(request(rows=4)))
        while not running.registry.get_sample_value("atelier_rows_admitted"):
            await asyncio.sleep(0.01)
        assert await code(running.stub.ModelInfer(request())) == "RESOURCE_EXHAUSTED"
        answer = await running.http.post(f"/v2/models/{GAN}/infer", json=document())
        assert answer.status_code == 429
        let_go.set()
        assert (await first).outputs[0].shape[0] == 4
        wanted = {"method": "ModelInfer", "model": GAN, "code": "RESOURCE_EXHAUSTED"}.items()
        counted = [
            sample.value
            for family in running.registry.collect()
            for sample in family.samples
            if sample.name == "atelier_requests_total" and wanted <= sample.labels.items()
        ]
        assert sum(counted) == 2


def document(**members: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "latent", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]},
            {"name": "class_id", "datatype": "INT64", "shape": [1, 1], "data": [0]},
        ],
        **members,
    }


async def test_a_call_that_is_cancelled_leaves_nothing_behind(running: Running):
    let_go = hold(running.service)
    calls = [running.stub.ModelInfer(request()) for _ in range(3)]
    while running.registry.get_sample_value("atelier_rows_admitted") != 3:
        await asyncio.sleep(0.01)
    for call in calls[1:]:
        call.cancel()
    while running.registry.get_sample_value("atelier_rows_admitted") != 1:
        await asyncio.sleep(0.01)
    let_go.set()
    assert (await calls[0]).model_version == "2"


async def test_a_stream_that_is_cut_off_ends_its_requests(running: Running):
    let_go = hold(running.service)

    async def requests() -> AsyncIterator[Any]:
        for _ in range(100):  # more than are read ahead
            yield request()

    call = running.stub.ModelStreamInfer(requests())
    while not running.registry.get_sample_value("atelier_rows_admitted") > 1:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert running.registry.get_sample_value("atelier_rows_admitted") < 100
    call.cancel()
    while running.registry.get_sample_value("atelier_rows_admitted"):
        await asyncio.sleep(0.01)
    let_go.set()


async def test_answers_of_a_stream_come_in_the_order_of_its_requests(running: Running):
    async def requests() -> AsyncIterator[Any]:
        for number in range(100):
            yield request(rows=1 + number % 8, id=str(number))

    found = [answer.infer_response async for answer in running.stub.ModelStreamInfer(requests())]
    assert [answer.id for answer in found] == [str(number) for number in range(100)]
    assert [answer.outputs[0].shape[0] for answer in found] == [1 + number % 8 for number in range(100)]


async def test_only_an_admin_loads_and_unloads(serve: Callable[..., Any]):
    async with serve(model_control="explicit", load_models="*") as running:
        stub = running.stub
        load, unload = pb.RepositoryModelLoadRequest, pb.RepositoryModelUnloadRequest
        for call in (
            stub.RepositoryModelLoad(load(model_name=GAN), metadata=ELSEWHERE),
            stub.RepositoryModelUnload(unload(model_name=GAN), metadata=ELSEWHERE),
        ):
            assert await code(call) == "PERMISSION_DENIED"
        for verb in ("load", "unload"):
            url = f"/v2/repository/models/{GAN}/{verb}"
            answer = await running.http.post(url, headers=dict(ELSEWHERE))
            assert answer.status_code == 403
            assert "admin" in answer.json()["error"]
        await stub.RepositoryModelUnload(unload(model_name=GAN))
        assert await code(stub.ModelInfer(request())) == "NOT_FOUND"
        await stub.RepositoryModelLoad(load(model_name=GAN))
        assert (await stub.ModelInfer(request())).model_version == "2"


@pytest.mark.parametrize("name", ["", ".", "..", "../tiny_gan", "/etc", "a/b", "a\\b", ".hidden", "a\0"])
async def test_a_path_cannot_be_loaded(serve: Callable[..., Any], name: str):
    async with serve(model_control="explicit", load_models="*") as running:
        call = running.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name))
        assert await code(call) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("parameter", ["config", "file:1/model.onnx", "file:../../x", "anything"])
async def test_nothing_can_be_uploaded(serve: Callable[..., Any], parameter: str):
    async with serve(model_control="explicit", load_models="*") as running:
        asked = pb.RepositoryModelLoadRequest(model_name=GAN)
        asked.parameters[parameter].bytes_param = b"not a model"
        assert await code(running.stub.RepositoryModelLoad(asked)) == "INVALID_ARGUMENT"
        body = {"parameters": {parameter: "bm90IGEgbW9kZWw="}}
        answer = await running.http.post(f"/v2/repository/models/{GAN}/load", json=body)
        assert answer.status_code == 400
        assert parameter in answer.json()["error"]
        assert (await running.stub.ModelInfer(request())).model_version == "2"


async def test_models_are_controlled_only_where_the_setting_says_so(running: Running):
    call = running.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=GAN))
    assert await code(call) == "FAILED_PRECONDITION"


async def test_another_repository_is_not_known(running: Running):
    for call in (
        running.stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other")),
        running.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name="other")),
    ):
        assert await code(call) == "UNIMPLEMENTED"


async def test_the_configuration_is_a_manifest(running: Running):
    found = await running.stub.ModelConfig(pb.ModelConfigRequest(name=GAN))
    assert from_config(found.config) == running.service.open_inference._graphs.manifest(GAN)


async def test_the_index_says_why_something_is_not_served(
    serve: Callable[..., Any], tiny_repository: Any, tmp_path: Any
):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.pbtxt").write_text("nonsense {", "utf-8")
    (tmp_path / GAN).symlink_to(tiny_repository / GAN)
    async with serve(repository=tmp_path) as running:
        found = await running.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        reasons = {model.name: model.reason for model in found.models if model.state == "UNAVAILABLE"}
        assert "does not parse" in reasons["broken"]
        ready = await running.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
        assert {model.name for model in ready.models} == {GAN}


async def test_a_client_that_goes_away_over_http_leaves_nothing_behind(running: Running):
    let_go = hold(running.service)
    task = asyncio.create_task(running.http.post(f"/v2/models/{GAN}/infer", json=document()))
    while not running.registry.get_sample_value("atelier_rows_admitted"):
        await asyncio.sleep(0.01)
    task.cancel()
    while running.registry.get_sample_value("atelier_rows_admitted"):
        await asyncio.sleep(0.01)
    let_go.set()


async def test_raw_rows_share_calls_with_those_of_pictures(running: Running):
    """What waits while the engine is busy goes into one call, whoever asked for it."""
    let_go = hold(running.service)
    pictures = GenerateImagesRequest(model=GAN, count=3, seed=1, class_id=0)
    calls = [asyncio.ensure_future(running.stub.ModelInfer(request(rows=2))) for _ in range(4)]
    drawing = asyncio.ensure_future(running.service.generate_images(pictures, RequestContext()))
    while running.registry.get_sample_value("atelier_rows_admitted") != 11:
        await asyncio.sleep(0.01)
    let_go.set()
    answers = await asyncio.gather(*calls)
    assert len((await drawing).images) == 3
    assert len({answer.raw_output_contents[0] for answer in answers}) == 1
    found = await running.stub.ModelStatistics(pb.ModelStatisticsRequest(name=GAN, version="2"))
    (counted,) = found.model_stats
    assert (counted.inference_count, counted.inference_stats.success.count) == (11, 5)
    assert counted.execution_count < 5


async def test_what_is_below_v2_and_not_there_answers_as_its_clients_read(running: Running):
    for path in ("/v2/", "/v2/nope", "/v2/models/tiny_gan/versions/x", "/v2/models/tiny_gan/infer"):
        answer = await running.http.get(path)
        assert answer.status_code == 404
        assert isinstance(answer.json()["error"], str)


async def test_a_body_over_the_limit_is_refused(running: Running):
    body = bytes(70_000_000)
    answer = await running.http.post(f"/v2/models/{GAN}/infer", content=body)
    assert answer.status_code == 413
    assert "max-message-bytes" in answer.json()["error"]


async def test_readiness_is_told_as_triton_tells_it(running: Running):
    running.service._requests.closing = True
    assert not (await running.stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await running.stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await running.http.get("/v2/health/ready")).status_code == 400
    assert (await running.http.get("/v2/health/live")).status_code == 200
    running.service._requests.closing = False


async def test_low_priorities_give_way_as_batch_requests_do(running: Running):
    asked = request()
    for priority, kind in ((0, "interactive"), (1, "interactive"), (2, "batch"), (2**63, "batch")):
        asked.parameters["priority"].uint64_param = priority
        seen = []
        runner = running.service.open_inference._runner
        admitted = runner.admitted

        def watched(ticket: Any, seen: Any = seen, admitted: Any = admitted) -> Any:
            seen.append(ticket.client)
            return admitted(ticket)

        runner.admitted = watched
        await running.stub.ModelInfer(asked)
        runner.admitted = admitted
        assert seen[0].endswith(kind)

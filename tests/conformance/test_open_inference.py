"""The stock tritonclient asks Atelier and a real Triton the same, and gets the same."""

import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc.aio
from prometheus_client import CollectorRegistry
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, shared_memory

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import tiny_graphs

from serving.client.gateway import Gateway, gateway
from serving.manifest import from_config, parse
from serving.opening import open_service
from serving.pb.image_generation_pb2 import GenerateImagesRequest
from serving.service import RequestContext
from serving.settings import Settings
from tests.conformance.stock import KINDS, Server, Stock, latents, stock
from tests.triton.server import TritonServer, few_instances, for_many, loaded, need_triton, standing

# The stock client of HTTP and asyncio leaves answers without a body unread.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")

GAN = "tiny_gan"
INVERT = "tiny_translator_a_to_b"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator in two versions, both of them served, and a translator of any size."""
    folder = tmp_path_factory.mktemp("repository")
    tiny_graphs.publish_gan(folder)
    tiny_graphs.publish_translator(folder)
    return few_instances(folder, tmp_path_factory.mktemp("few") / "repository")


@pytest.fixture(scope="module", params=("atelier", "triton"))
def running(request: pytest.FixtureRequest, repository: Path) -> Iterator[Gateway | TritonServer]:
    """A server over the repository, which loads and unloads models when it is told to."""
    if request.param == "atelier":
        flags = [
            "--instances",
            "1",
            "--model-control",
            "explicit",
            "--load-models",
            "*",
            "--client-shared-memory",
            "true",
        ]
        with gateway(repository, *flags) as atelier:
            yield atelier
    else:
        need_triton()
        with for_many(repository, control="explicit", flags=["--load-model=*"]) as triton:
            yield triton


@pytest.fixture
def server(running: Gateway | TritonServer) -> Iterator[Server]:
    """Where that server is. No test cancels a call in it or gives it a deadline: Triton 2.51 may die so."""
    if isinstance(running, TritonServer):
        with standing(running):
            yield Server(name="triton", grpc=running.grpc_address, http=running.http_address)
    else:
        http = running.http_address.removeprefix("http://")
        yield Server(name="atelier", grpc=running.grpc_address, http=http)


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Stock]:
    """Each kind of client in turn."""
    with stock(request.param, server) as opened:
        yield opened


@pytest.fixture
def reference(repository: Path) -> Callable[[dict[str, Any], int], Any]:
    """What onnxruntime makes of inputs of the generator."""

    def compute(inputs: dict[str, Any], version: int = 2) -> Any:
        session = onnxruntime.InferenceSession(repository / GAN / str(version) / "model.onnx")
        return session.run(["sample"], inputs)[0]

    return compute


def test_it_is_live_and_ready_and_says_what_it_can(client: Stock):
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.document("get_server_metadata")
    assert metadata["name"] == client.server.name
    wanted = {"classification", "model_repository", "model_configuration", "binary_tensor_data", "statistics"}
    assert wanted <= set(metadata["extensions"])


def test_models_are_ready_by_name_and_version(client: Stock):
    assert client.is_model_ready(GAN)
    assert client.is_model_ready(GAN, "1")
    assert not client.is_model_ready(GAN, "9")
    assert not client.is_model_ready("nobody")


def test_metadata_names_the_tensors_with_the_batch_first(client: Stock):
    found = client.document("get_model_metadata", GAN)
    tensors = [
        (tensor["name"], tensor["datatype"], [int(axis) for axis in tensor["shape"]])
        for tensor in (*found["inputs"], *found["outputs"])
    ]
    assert found["name"] == GAN
    assert found["platform"] == "onnxruntime_onnx"
    assert found["versions"] == ["1", "2"]
    assert tensors == [
        ("latent", "FP32", [-1, 4]),
        ("class_id", "INT64", [-1, 1]),
        ("sample", "FP32", [-1, 1, 8, 8]),
    ]


def test_the_configuration_is_that_of_the_repository(client: Stock, repository: Path):
    found = client.document("get_model_config", GAN)
    found = found.get("config", found)
    assert found["name"] == GAN
    assert found["backend"] == "onnxruntime"
    assert found["max_batch_size"] == 8
    config = model_config_pb2.ModelConfig(name=GAN, max_batch_size=found["max_batch_size"])
    for tensors, said in ((config.input, found["input"]), (config.output, found["output"])):
        for each in said:
            dims = [int(axis) for axis in each["dims"]]
            tensors.add(name=each["name"], data_type=each["data_type"], dims=dims)
    for key, parameter in found["parameters"].items():
        config.parameters[key].string_value = parameter["string_value"]
    config.version_policy.specific.versions.extend(map(int, found["version_policy"]["specific"]["versions"]))
    published = (repository / GAN / "config.pbtxt").read_text("utf-8")
    assert from_config(config) == parse(published, GAN)


def test_tensors_come_back_as_onnxruntime_computes_them(client: Stock, reference: Callable[..., Any]):
    inputs = latents(3)
    found = client.ask(GAN, inputs).as_numpy("sample")
    assert found.tobytes() == reference(inputs).tobytes()


def test_a_version_can_be_pinned_and_the_newest_is_meant_otherwise(
    client: Stock, reference: Callable[..., Any]
):
    inputs = latents(2)
    for asked, meant in (("1", 1), ("2", 2), ("", 2)):
        found = client.ask(GAN, inputs, model_version=asked).as_numpy("sample")
        assert found.tobytes() == reference(inputs, meant).tobytes()


def test_pictures_of_any_size_are_taken(client: Stock):
    image = np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 12)).astype(np.float32)
    assert np.allclose(client.ask(INVERT, {"image": image}).as_numpy("translated"), -image)


def test_the_answer_bears_the_request_id_and_the_outputs_that_were_asked_for(client: Stock):
    wanted = [client.output("sample")]
    result = client.ask(GAN, latents(1), request_id="r-17", outputs=wanted, priority=1, timeout=10_000_000)
    answer = result.get_response(as_json=True) if client.grpc else result.get_response()
    assert answer["id"] == "r-17"
    assert answer["model_name"] == GAN
    assert [output["name"] for output in answer["outputs"]] == ["sample"]


def test_parameters_of_the_clients_own_are_let_be(client: Stock):
    assert client.ask(GAN, latents(1), parameters={"who": "me", "how": 2}).as_numpy("sample").shape[0] == 1


def test_elements_can_stand_in_the_json(server: Server, reference: Callable[..., Any]):
    inputs = latents(2)
    with stock("http", server) as client:
        tensors = [client.input(name, array, binary_data=False) for name, array in inputs.items()]
        result = client.infer(GAN, tensors, outputs=[client.output("sample", binary_data=False)])
    assert "data" in result.get_output("sample")
    assert np.array_equal(result.as_numpy("sample"), reference(inputs))


@pytest.mark.parametrize("kind", ["http", "http.aio"])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_can_be_compressed(server: Server, kind: str, algorithm: str, reference: Callable[..., Any]):
    inputs = latents(8)
    both = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    with stock(kind, server) as client:
        found = client.ask(GAN, inputs, **both).as_numpy("sample")
    assert found.tobytes() == reference(inputs).tobytes()


@pytest.mark.parametrize("kind", ["grpc", "grpc.aio"])
def test_messages_can_be_compressed(server: Server, kind: str, reference: Callable[..., Any]):
    inputs = latents(8)
    with stock(kind, server) as client:
        found = client.ask(GAN, inputs, compression_algorithm="gzip").as_numpy("sample")
    assert found.tobytes() == reference(inputs).tobytes()


def test_the_greatest_elements_are_named(client: Stock, reference: Callable[..., Any]):
    inputs = latents(2, seed=3)
    found = client.ask(GAN, inputs, outputs=[client.output("sample", class_count=3)]).as_numpy("sample")
    rows = reference(inputs).reshape(2, -1)
    for row, texts in zip(rows, found, strict=True):
        values, places = zip(*(text.decode().split(":") for text in texts), strict=True)
        best = np.sort(row)[::-1][:3]
        assert np.allclose([float(value) for value in values], best, atol=1e-6)
        assert np.array_equal(row[[int(place) for place in places]], best)


def test_calls_are_counted(client: Stock):
    def counted() -> list[int]:
        (found,) = client.document("get_inference_statistics", GAN, "1")["model_stats"]
        inference = found["inference_stats"]
        parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        batches = found.get("batch_stats", [])
        return [
            int(found.get("inference_count", 0)),
            int(found.get("execution_count", 0)),
            *(int(inference[part].get("count", 0)) for part in parts),
            sum(int(batch["compute_infer"]["count"]) for batch in batches if int(batch["batch_size"]) == 3),
            int(inference["success"].get("ns", 0)) > int(inference["compute_infer"].get("ns", 0)),
        ]

    client.ask(GAN, latents(3), model_version="1")
    before = counted()
    for _ in range(2):
        client.ask(GAN, latents(3), model_version="1")
    difference = [after - now for now, after in zip(before, counted(), strict=True)]
    assert difference == [6, 2, 2, 2, 2, 2, 2, 2, 0]
    assert before[-1]


def test_statistics_of_what_is_not_there_are_refused(client: Stock):
    assert client.error(lambda: client.get_inference_statistics("nobody")) == (
        "INVALID_ARGUMENT",
        "requested model 'nobody' is not available",
    )
    code, message = client.error(lambda: client.get_inference_statistics(GAN, "9"))
    assert (code, message) == (
        "INVALID_ARGUMENT",
        f"requested model version is not available for model '{GAN}'",
    )


def unknown_model(client: Stock) -> Any:
    return client.ask("nobody", latents(1))


def unknown_version(client: Stock) -> Any:
    return client.ask(GAN, latents(1), model_version="9")


def path_as_a_name(client: Stock) -> Any:
    return client.ask("../tiny_gan", latents(1))


def missing_input(client: Stock) -> Any:
    return client.infer(GAN, [client.input("latent", latents(1)["latent"])], request_id="r-1")


def one_input_too_many(client: Stock) -> Any:
    return client.ask(GAN, {**latents(1), "strange": np.ones((1, 4), np.float32)})


def misnamed_input(client: Stock) -> Any:
    return client.ask(GAN, {"latents": latents(1)["latent"], "class_id": latents(1)["class_id"]})


def input_twice(client: Stock) -> Any:
    latent = client.input("latent", latents(1)["latent"])
    return client.infer(GAN, [latent, latent, client.input("class_id", latents(1)["class_id"])])


def wrong_datatype(client: Stock) -> Any:
    return client.ask(GAN, {**latents(1), "latent": np.ones((1, 4))})


def wrong_shape(client: Stock) -> Any:
    return client.ask(GAN, {**latents(1), "latent": np.ones((1, 5), np.float32)})


def wrong_rank(client: Stock) -> Any:
    return client.ask(GAN, {**latents(1), "latent": np.ones((1, 4, 1), np.float32)})


def rows_that_differ(client: Stock) -> Any:
    return client.ask(GAN, {**latents(1), "latent": np.ones((2, 4), np.float32)})


def too_many_rows(client: Stock) -> Any:
    return client.ask(GAN, latents(9))


def unknown_output(client: Stock) -> Any:
    return client.ask(GAN, latents(1), outputs=[client.output("picture")])


def unknown_region(client: Stock) -> Any:
    latent = client.input("latent", latents(1)["latent"])
    latent.set_shared_memory("nowhere", 16)
    return client.infer(GAN, [latent, client.input("class_id", latents(1)["class_id"])])


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (unknown_model, "NOT_FOUND", "Request for unknown model: 'nobody' is not found"),
        (unknown_version, "NOT_FOUND", "unknown model: 'tiny_gan' version 9 is not found"),
        (missing_input, "INVALID_ARGUMENT", "[request id: r-1] expected 2 inputs but got 1 inputs"),
        (missing_input, "INVALID_ARGUMENT", "missing required input(s) ['class_id']"),
        (one_input_too_many, "INVALID_ARGUMENT", "expected 2 inputs but got 3 inputs for model 'tiny_gan'"),
        (misnamed_input, "INVALID_ARGUMENT", "unexpected inference input 'latents' for model 'tiny_gan'"),
        (input_twice, "INVALID_ARGUMENT", "input 'latent' already exists in request"),
        (wrong_datatype, "INVALID_ARGUMENT", "input 'latent' data-type is 'FP64', but model 'tiny_gan'"),
        (wrong_datatype, "INVALID_ARGUMENT", "expects 'FP32'"),
        (wrong_shape, "INVALID_ARGUMENT", "unexpected shape for input 'latent' for model 'tiny_gan'"),
        (wrong_shape, "INVALID_ARGUMENT", "Expected [-1,4], got [1,5]"),
        (wrong_rank, "INVALID_ARGUMENT", "Expected [-1,4], got [1,4,1]"),
        (rows_that_differ, "INVALID_ARGUMENT", "batch size does not match other inputs for 'tiny_gan'"),
        (too_many_rows, "INVALID_ARGUMENT", "inference request batch-size must be <= 8 for 'tiny_gan'"),
        (unknown_output, "INVALID_ARGUMENT", "unexpected inference output 'picture' for model 'tiny_gan'"),
        (unknown_region, "NOT_FOUND", "Unable to find shared memory region: 'nowhere'"),
    ],
)
def test_bad_requests_are_refused_in_the_same_words(
    client: Stock, ask: Callable[[Stock], Any], code: str, words: str
):
    found, message = client.error(lambda: ask(client))
    assert found == code
    assert words in message


def test_a_path_is_the_name_of_no_model(client: Stock):
    assert client.error(lambda: path_as_a_name(client))[0] == "NOT_FOUND"
    assert client.error(lambda: client.get_model_metadata("../tiny_gan"))[0] == "NOT_FOUND"


HEADER = json.dumps(
    {
        "inputs": [
            {"name": "latent", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}},
            {"name": "class_id", "datatype": "INT64", "shape": [1, 1], "parameters": {"binary_data_size": 8}},
        ]
    }
).encode()
TENSORS = b"".join(array.tobytes() for array in latents(1).values())


@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (HEADER + TENSORS[:-1], len(HEADER), "unexpected size for input 'class_id', expecting 1 additional"),
        (HEADER + TENSORS + b"more", len(HEADER), "unexpected additional input data for model 'tiny_gan'"),
        (HEADER + TENSORS, 100_000, "inference header size should be in range"),
        (HEADER + TENSORS, -1, "inference header size should be in range"),
        (HEADER.replace(b'": 16', b'": 12') + TENSORS, len(HEADER), "unexpected additional input data"),
    ],
)
def test_bodies_of_a_wrong_size_are_refused(server: Server, body: bytes, length: int, words: str):
    headers = {"Inference-Header-Content-Length": str(length)}
    answer = httpx.post(f"http://{server.http}/v2/models/{GAN}/infer", content=body, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_body_of_an_unknown_compression_is_refused(server: Server):
    url = f"http://{server.http}/v2/models/{GAN}/infer"
    headers = {"Inference-Header-Content-Length": str(len(HEADER))}
    whole = zlib.compress(HEADER + TENSORS)

    def status(content: bytes, encoding: str) -> int:
        asked = {**headers, "Content-Encoding": encoding}
        return httpx.post(url, content=content, headers=asked).status_code

    assert status(whole, "deflate") == 200
    assert status(whole, "br") == 501
    assert status(b"nothing compressed", "gzip") == 400


async def test_a_stream_answers_each_request_and_an_error_is_one_requests_own(server: Server):
    inputs = [tritonclient.grpc.InferInput("latent", [1, 4], "FP32")]
    inputs.append(tritonclient.grpc.InferInput("class_id", [1, 1], "INT64"))
    for tensor, array in zip(inputs, latents(1).values(), strict=True):
        tensor.set_data_from_numpy(array)

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(12):
            model = "nobody" if number == 5 else GAN
            yield {"model_name": model, "inputs": inputs, "request_id": f"r-{number}"}

    async with tritonclient.grpc.aio.InferenceServerClient(server.grpc) as client:
        answers, errors = {}, []
        async for result, error in client.stream_infer(requests()):
            if error is not None:
                errors.append(error.message())
            else:
                answers[result.get_response().id] = result.as_numpy("sample")
                assert result.get_response().parameters["triton_final_response"].bool_param
    assert errors == ["Request for unknown model: 'nobody' is not found"]
    assert set(answers) == {f"r-{number}" for number in range(12)} - {"r-5"}
    assert len({array.tobytes() for array in answers.values()}) == 1


def test_the_index_names_every_version(client: Stock):
    index = client.document("get_model_repository_index")
    models = index["models"] if client.grpc else index
    ready = {(model["name"], model["version"]) for model in models if model.get("state") == "READY"}
    assert {(GAN, "1"), (GAN, "2"), (INVERT, "1")} <= ready


def test_a_model_goes_and_comes_when_it_is_told_to(client: Stock):
    client.unload_model(GAN)
    try:
        assert not client.is_model_ready(GAN)
        code, message = client.error(lambda: client.ask(GAN, latents(1)))
        assert code == "NOT_FOUND"
        assert message == f"Request for unknown model: '{GAN}' has no available versions"
        assert client.is_model_ready(INVERT)
    finally:
        client.load_model(GAN)
    assert client.is_model_ready(GAN)
    assert client.ask(GAN, latents(1)).as_numpy("sample").shape == (1, 1, 8, 8)


def test_what_cannot_be_loaded_is_an_error(client: Stock):
    with pytest.raises(Exception, match="nobody"):
        client.load_model("nobody")


def test_models_outside_the_repository_cannot_be_loaded(client: Stock):
    with pytest.raises(InferenceServerException):
        client.load_model("../elsewhere")


def test_tensors_can_lie_in_shared_memory(client: Stock, reference: Callable[..., Any]):
    inputs = latents(2)
    key = f"/atelier-{client.server.name}-{client.kind}"
    region = shared_memory.create_shared_memory_region("tensors", key, 4096)
    try:
        shared_memory.set_shared_memory_region(region, [inputs["latent"]], offset=64)
        client.register_system_shared_memory("tensors", key, 4096)
        registered = client.document("get_system_shared_memory_status")
        registered = list(registered["regions"].values()) if client.grpc else registered
        assert [(each["name"], int(each["byte_size"])) for each in registered] == [("tensors", 4096)]
        latent = client.module.InferInput("latent", [2, 4], "FP32")
        latent.set_shared_memory("tensors", 32, offset=64)
        sample = client.output("sample")
        sample.set_shared_memory("tensors", 512, offset=1024)
        client.infer(GAN, [latent, client.input("class_id", inputs["class_id"])], outputs=[sample])
        found = shared_memory.get_contents_as_numpy(region, np.float32, [2, 1, 8, 8], offset=1024)
        assert found.tobytes() == reference(inputs).tobytes()
    finally:
        client.unregister_system_shared_memory()
        shared_memory.destroy_shared_memory_region(region)
    assert client.error(lambda: client.get_system_shared_memory_status("tensors"))[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("size", "offset", "words"),
    [
        (32, 4090, "Invalid offset + byte size for shared memory region: 'tensors'"),
        (32, 2**40, "Invalid offset for shared memory region: 'tensors'"),
        (12, 64, "input byte size mismatch for input 'latent' for model 'tiny_gan'. Expected 32, got 12"),
    ],
)
def test_places_outside_a_region_are_refused(client: Stock, size: int, offset: int, words: str):
    key = f"/atelier-bad-{client.server.name}-{client.kind}"
    region = shared_memory.create_shared_memory_region("tensors", key, 4096)
    try:
        client.register_system_shared_memory("tensors", key, 4096)
        latent = client.module.InferInput("latent", [2, 4], "FP32")
        latent.set_shared_memory("tensors", size, offset=offset)
        tensors = [latent, client.input("class_id", latents(2)["class_id"])]
        assert client.error(lambda: client.infer(GAN, tensors)) == (
            "INVALID_ARGUMENT",
            ("[request id: <id_unknown>] " if "mismatch" in words else "") + words,
        )
    finally:
        client.unregister_system_shared_memory()
        shared_memory.destroy_shared_memory_region(region)


@pytest.mark.parametrize("key", ["/nothing-there", "../../etc/passwd", "/etc/passwd", ""])
def test_only_shared_memory_can_be_registered(client: Stock, key: str):
    _, message = client.error(lambda: client.register_system_shared_memory("tensors", key, 16))
    assert message == f"Unable to open shared memory region: '{key}'"


def test_a_region_is_registered_once_and_no_larger_than_it_is(client: Stock):
    key = f"/atelier-twice-{client.server.name}-{client.kind}"
    region = shared_memory.create_shared_memory_region("tensors", key, 4096)
    try:
        _, message = client.error(lambda: client.register_system_shared_memory("tensors", key, 4097))
        assert "failed to register shared memory region 'tensors': invalid args" in message
        client.register_system_shared_memory("tensors", key, 4096)
        _, message = client.error(lambda: client.register_system_shared_memory("tensors", key, 4096))
        assert message == "shared memory region 'tensors' already in manager"
    finally:
        client.unregister_system_shared_memory()
        shared_memory.destroy_shared_memory_region(region)


async def test_a_gateway_can_be_the_engine_of_another(repository: Path):
    asked = GenerateImagesRequest(model=GAN, count=5, seed=7, format="IMAGE_FORMAT_RAW_U8")
    with gateway(repository) as engine:
        over = Settings(backend="triton", triton_url=engine.grpc_address)
        embedded = Settings(repository=repository, device="cpu")
        pictures = []
        for settings in (over, embedded):
            async with open_service(settings, CollectorRegistry()) as service:
                await loaded(service)
                answer = await service.generate_images(asked, RequestContext())
                pictures.append([image.data for image in answer.images])
    assert pictures[0] == pictures[1]

"""The doors of both ports: keys, scopes and limits, TLS, and what clients may send how slowly."""

import asyncio
import gzip
import json
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest

sys.path.insert(0, str(Path(__file__).parents[1]))

from certificates import Authority

from serving.access.door import Door
from serving.access.keys import digest_of, new_key
from serving.client import AsyncClient, AtelierError, Client
from serving.observing.metrics import TURNED_AWAY
from serving.pb import image_generation_pb2 as pb
from serving.pb.image_generation_pb2_grpc import ImageGenerationStub
from serving.process.ports import listen
from serving.service import RequestContext, Service
from serving.settings import Settings
from serving.transports.grpc_api import GrpcServer
from serving.transports.http_api import create_app
from serving.transports.http_server import run_http
from serving.transports.tls import grpc_credentials, open_certificates, rotating_context

USE, ADMIN, TIGHT, ONE = new_key(), new_key(), new_key(), new_key()


@dataclass(frozen=True, kw_only=True)
class Running:
    """Both ports of a gateway."""

    http_port: int
    grpc_port: int
    door: Door
    certificates: Any


@asynccontextmanager
async def serve(service: Service, **values: Any) -> AsyncIterator[Running]:
    settings, stopping = Settings(grpc_port=0, **values), asyncio.Event()
    door, certificates = Door(settings), open_certificates(settings)
    credentials = certificates and grpc_credentials(certificates)
    server = GrpcServer(service, settings, lambda: None, door, credentials)
    app = create_app(service, settings, CollectorRegistry(), lambda: None, door)
    with listen("127.0.0.1", 0, "--http-port") as listener:
        tls = certificates and rotating_context(certificates)
        tasks = [
            asyncio.create_task(server.run(stopping)),
            asyncio.create_task(run_http(app, listener, settings, stopping, tls=tls)),
        ]
        try:
            port = listener.getsockname()[1]
            yield Running(http_port=port, grpc_port=server.port, door=door, certificates=certificates)
        finally:
            stopping.set()
            await asyncio.gather(*tasks)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(
        f'[keys.user]\nsha256 = "{digest_of(USE)}"\n'
        f'[keys.root]\nsha256 = "{digest_of(ADMIN)}"\nscopes = ["admin"]\n'
        f'[keys.tight]\nsha256 = "{digest_of(TIGHT)}"\nrequests_per_second = 0.01\nburst = 2\n'
        "images_per_minute = 3\n"
    )
    return path


def change(running: Running, keys: Path, text: str) -> None:
    keys.write_text(text)
    running.door.keys.refresh()


Ask = Callable[..., Any]


async def over_grpc(running: Running, *metadata: tuple[str, str], count: int = 1) -> str:
    """The code of a request for pictures, or OK."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        request = pb.GenerateImagesRequest(model="tiny_gan", count=count)
        try:
            await ImageGenerationStub(channel).GenerateImages(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def over_http(running: Running, *headers: tuple[str, str], count: int = 1) -> str:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.http_port}") as http:
        answer = await http.post("/v1/models/tiny_gan:generate", json={"count": count}, headers=dict(headers))
    return "OK" if answer.status_code == 200 else answer.json()["error"]["status"]


@pytest.mark.parametrize("ask", [over_grpc, over_http])
async def test_one_comes_in_with_a_key_alone(service: Service, keys: Path, ask: Ask):
    async with serve(service, api_keys=keys) as running:
        assert await ask(running) == "UNAUTHENTICATED"
        assert await ask(running, ("x-api-key", new_key())) == "UNAUTHENTICATED"
        assert await ask(running, ("authorization", f"Basic {USE}")) == "UNAUTHENTICATED"
        assert await ask(running, ("x-api-key", USE)) == "OK"
        assert await ask(running, ("authorization", f"bearer {USE}")) == "OK"
        assert await ask(running, ("authorization", "Basic x"), ("x-api-key", USE)) == "OK"
        assert await ask(running, ("x-api-key", ADMIN)) == "PERMISSION_DENIED"


@pytest.mark.parametrize("ask", [over_grpc, over_http])
async def test_keys_change_without_a_restart(service: Service, keys: Path, ask: Ask):
    new = new_key()
    async with serve(service, api_keys=keys) as running:
        change(running, keys, "broken")
        assert await ask(running, ("x-api-key", USE)) == "OK"
        change(running, keys, f'[keys.user]\nsha256 = "{digest_of(new)}"\n')
        assert await ask(running, ("x-api-key", USE)) == "UNAUTHENTICATED"
        assert await ask(running, ("x-api-key", new)) == "OK"


@pytest.mark.parametrize("ask", [over_grpc, over_http])
async def test_a_key_has_its_limits(service: Service, keys: Path, ask: Ask):
    async with serve(service, api_keys=keys) as running:
        assert await ask(running, ("x-api-key", TIGHT), count=4) == "RESOURCE_EXHAUSTED"  # images
        assert await ask(running, ("x-api-key", TIGHT), count=3) == "OK"
        assert await ask(running, ("x-api-key", TIGHT), count=1) == "RESOURCE_EXHAUSTED"  # requests
        assert await ask(running, ("x-api-key", USE), count=4) == "OK"


async def test_refusals_say_how_to_come_in_and_when_to_come_again(service: Service, keys: Path):
    async with (
        serve(service, api_keys=keys) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.http_port}") as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel,
    ):
        refused = await http.get("/v1/models")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert "x-api-key" in refused.json()["error"]["message"]
        headers = {"x-api-key": TIGHT}
        for _ in range(2):
            assert (await http.get("/v1/models", headers=headers)).status_code == 200
        limited = await http.get("/v1/models", headers=headers)
        assert limited.status_code == 429
        assert int(limited.headers["retry-after"]) > 50
        stub = ImageGenerationStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(pb.ListModelsRequest(), metadata=tuple(headers.items()))
        details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        retry = error_details_pb2.RetryInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(retry)
        assert retry.retry_delay.seconds > 50


async def test_probes_and_the_page_need_no_key_and_everything_else_does(service: Service, keys: Path):
    async with (
        serve(service, api_keys=keys) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.http_port}") as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel,
    ):
        for path in ("/", "/docs", "/openapi.json", "/web/app.js", "/healthz", "/readyz"):
            assert (await http.get(path)).status_code == 200, path
        for path in (
            "/v1/models",
            "/v1/models/tiny_gan",
            "/v1/models/tiny_gan/card",
            "/metrics",
            "/v2",
            "/x",
        ):
            assert (await http.get(path)).status_code == 401, path
            assert (await http.get(path, headers={"x-api-key": USE})).status_code != 401, path
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        for call in (
            ImageGenerationStub(channel).ListModels(pb.ListModelsRequest()),
            ImageGenerationStub(channel).StreamGenerateImages(pb.GenerateImagesRequest()).read(),
            reflection_pb2_grpc.ServerReflectionStub(channel)
            .ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            .read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_who_is_turned_away_is_counted_by_why_and_never_by_key(open_tiny: Any, keys: Path):
    registry = CollectorRegistry()
    counted = "atelier_callers_turned_away_total"

    def count() -> dict[str, float]:
        samples = [sample for family in registry.collect() for sample in family.samples]
        found = {each.labels["reason"]: each.value for each in samples if each.name == counted}
        assert set(found) == set(TURNED_AWAY), "every reason is there from the start, and no other"
        return {reason: value for reason, value in found.items() if value}

    async def all_counted(expected: dict[str, float]) -> None:
        async with asyncio.timeout(20):  # a call of gRPC may end for its client first
            while count() != expected:
                await asyncio.sleep(0.01)

    keys.write_text(keys.read_text() + f'[keys.one]\nsha256 = "{digest_of(ONE)}"\nconcurrency = 1\n')
    async with (
        open_tiny(registry) as service,
        serve(service, api_keys=keys, max_message_bytes=100_000, receive_timeout=0.3) as running,
    ):
        assert count() == {}
        for ask in (over_grpc, over_http):
            await ask(running)
            await ask(running, ("x-api-key", new_key()))
            await ask(running, ("x-api-key", ADMIN))
            assert await ask(running, ("x-api-key", USE)) == "OK"
        by_key = {"no_key": 2, "unknown_key": 2, "scope": 2}
        await all_counted(by_key)
        await over_http(running, ("x-api-key", TIGHT), count=4)
        await over_http(running, ("x-api-key", TIGHT))
        await over_grpc(running, ("x-api-key", TIGHT))
        by_key |= {"key_images": 1, "key_requests": 1}
        asked = pb.GenerateImagesRequest(model="tiny_gaussian", steps=200)
        context = RequestContext(caller=running.door.enter({"x-api-key": ONE}, local=False))
        first = asyncio.create_task(service.generate_images(asked, context))
        await asyncio.sleep(0)
        assert await over_grpc(running, ("x-api-key", ONE)) == "RESOURCE_EXHAUSTED"
        await first
        by_key |= {"key_concurrency": 1}
        await all_counted(by_key)
        load = f"http://127.0.0.1:{running.http_port}/v2/repository/models/tiny_gan/load"
        infer = f"http://127.0.0.1:{running.http_port}/v2/models/tiny_gan/infer"
        async with httpx.AsyncClient(headers={"x-api-key": USE}) as http:
            assert (await http.post(load)).status_code == 403
            assert (await http.post(infer, content=bytes(100_001))).status_code == 413
            inflated = gzip.compress(bytes(100_001))
            headers = {"Content-Encoding": "gzip"}
            assert (await http.post(infer, content=inflated, headers=headers)).status_code == 413
        by_key |= {"scope": 3, "too_large": 2}
        head = f"POST /v2/models/tiny_gan/infer HTTP/1.1\r\nHost: x\r\nx-api-key: {USE}\r\n"
        await raw(running.http_port, f"{head}Content-Length: 9\r\n\r\n".encode() + b"{")
        by_key |= {"too_slow": 1}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
            stub, large = ImageGenerationStub(channel), pb.GenerateImagesRequest(model="x" * 100_001)
            for call in (
                stub.GenerateImages(large, metadata=(("x-api-key", USE),)),
                stub.StreamGenerateImages(large, metadata=(("x-api-key", USE),)).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await all_counted(by_key | {"no_message": 2})
        exposed = generate_latest(registry).decode()
        assert not any(key in exposed for key in (USE, ADMIN, TIGHT, ONE))


async def test_turns_are_by_the_name_of_the_key(
    service: Service, keys: Path, monkeypatch: pytest.MonkeyPatch
):
    contexts: list[RequestContext] = []

    async def spy(_: Any, context: RequestContext) -> pb.GenerateImagesResponse:
        contexts.append(context)
        return pb.GenerateImagesResponse()

    monkeypatch.setattr(service, "generate_images", spy)
    async with serve(service, api_keys=keys) as running:
        await over_grpc(running, ("x-api-key", USE))
        await over_http(running, ("x-api-key", ADMIN))
        await over_grpc(running, ("x-api-key", ADMIN))
    assert [context.client for context in contexts] == ["user", "root", "root"]
    with pytest.raises(Exception, match="'user' has the scopes use"):
        contexts[0].require_admin()
    contexts[1].require_admin()


async def test_no_key_is_ever_seen_in_logs_or_answers(
    service: Service, keys: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: Any) -> None:
        raise RuntimeError("something broke")

    wrong = new_key()
    said: list[str] = []
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.WARNING)  # the client's own
    async with (
        serve(service, api_keys=keys) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.http_port}") as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel,
    ):
        stub = ImageGenerationStub(channel)
        for broken in (False, True):
            if broken:
                monkeypatch.setattr(service, "list_models", fail)
            for key in (USE, ADMIN, TIGHT, wrong):
                for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
                    for path in ("/v1/models", "/v1/models/none:generate", f"/v1/{broken}"):
                        answer = await http.get(path, headers=headers)
                        said.append(f"{answer.headers} {answer.text}")
                    try:
                        await stub.ListModels(pb.ListModelsRequest(), metadata=tuple(headers.items()))
                    except grpc.aio.AioRpcError as error:
                        said.append(repr(error))
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
        writer.write(f"GET / HTTP/1.1\r\nx-api-key: {USE}\r\nbroken\r\n\r\n".encode())
        said.append((await reader.read()).decode())
        writer.close()
    said += [record.getMessage() + str(record.exc_info) for record in caplog.records] + [caplog.text]
    assert "something broke" in caplog.text
    for key in (USE, ADMIN, TIGHT, wrong):
        assert not any(key in each or key.removeprefix("atelier_") in each for each in said)


async def test_both_ports_speak_tls_and_take_renewed_certificates(service: Service, tmp_path: Path):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    pair = old.certify("gateway")
    async with serve(service, tls_cert=pair.cert, tls_key=pair.key) as running:
        for authority, other in ((old, new), (new, old)):
            where = f"https://localhost:{running.grpc_port}"
            async with AsyncClient(where, tls_ca=authority.cert, timeout=20) as client:
                assert await client.models()
            context = ssl.create_default_context(cafile=str(authority.cert))
            async with httpx.AsyncClient(verify=context) as http:
                url = f"https://localhost:{running.http_port}/v1/models"
                assert (await http.get(url)).status_code == 200
            async with AsyncClient(where, tls_ca=other.cert, timeout=20) as client:
                with pytest.raises(AtelierError):
                    await client.models()
            new.certify("gateway")
            running.certificates.refresh()


async def test_with_mtls_one_comes_in_with_a_certificate_of_the_authority_alone(
    service: Service, tmp_path: Path
):
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    pair = ours.certify("gateway")
    files = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": ours.cert}
    async with serve(service, **files) as running:
        for client, welcome in ((ours.certify("us"), True), (theirs.certify("them"), False), (None, False)):
            own = {"tls_cert": client.cert, "tls_key": client.key} if client else {}
            where = f"https://localhost:{running.grpc_port}"
            async with AsyncClient(where, tls_ca=ours.cert, timeout=20, **own) as asked:
                if welcome:
                    assert await asked.models()
                else:
                    with pytest.raises(AtelierError):
                        await asked.models()
            context = ssl.create_default_context(cafile=str(ours.cert))
            if client:
                context.load_cert_chain(client.cert, client.key)
            async with httpx.AsyncClient(verify=context) as http:
                url = f"https://localhost:{running.http_port}/v1/models"
                if welcome:
                    assert (await http.get(url)).status_code == 200
                else:
                    with pytest.raises(httpx.TransportError):
                        await http.get(url)


async def test_the_client_that_waits_shows_its_key(service: Service, keys: Path):
    async with serve(service, api_keys=keys) as running:

        def ask(key: str | None) -> int:
            with Client(f"127.0.0.1:{running.grpc_port}", api_key=key) as client:
                return len(client.models()) + len(client.generate("tiny_gan"))

        assert await asyncio.to_thread(ask, USE) > 1
        with pytest.raises(AtelierError, match="wants an API key") as caught:
            await asyncio.to_thread(ask, None)
        assert caught.value.code == "UNAUTHENTICATED"


async def raw(port: int, sent: bytes) -> bytes:
    """What comes back on a connection on which no more is sent, until the gateway closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Slow:", b""),
        (b"POST /v1/models/tiny_gan:generate HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", b" 408 "),
    ],
)
async def test_who_sends_nothing_for_long_is_shown_out(service: Service, sent: bytes, said: bytes):
    async with serve(service, receive_timeout=0.2) as running:
        assert said in await asyncio.wait_for(raw(running.http_port, sent), 20)


@pytest.mark.parametrize("second", [b"GET /heal", b"G"])
async def test_a_second_request_that_does_not_come_whole_is_shown_out_too(service: Service, second: bytes):
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serve(service, receive_timeout=0.3) as running:
        answers = await asyncio.wait_for(raw(running.http_port, whole + second), 20)
        assert answers.count(b" 200 ") == 1


async def test_who_keeps_a_connection_open_with_empty_lines_is_shown_out(service: Service):
    async with serve(service, receive_timeout=0.3) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"ok\n"), 20)
        writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_body_that_trickles_is_shown_out(service: Service):
    async with serve(service, receive_timeout=0.3) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
        writer.write(
            b"POST /v1/models/tiny_gan:generate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
        )
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.02)
        assert b" 408 " in answer.result()
        writer.close()


async def test_what_is_refused_for_its_size_may_come_to_its_end_and_another_request_after_it(
    service: Service,
):
    async with serve(service, max_message_bytes=100_000) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
        head = b"POST /v1/models/tiny_gan:generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % 1_000_000 + bytes(1_000_000))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = await asyncio.wait_for(reader.read(), 20)
        assert answers.index(b" 413 ") < answers.index(b" 200 ")
        writer.close()


@pytest.mark.parametrize(
    "head", [b"X: " + b"a" * 100_000 + b"\r\n\r\n", b"X: " + b"a" * 100_000, b"X: y\r\n" * 20_000]
)
async def test_heads_without_end_are_refused(service: Service, head: bytes):
    async with serve(service) as running:
        answer = await asyncio.wait_for(raw(running.http_port, b"GET / HTTP/1.1\r\nHost: x\r\n" + head), 20)
        assert b" 400 " in answer


async def test_compressed_bodies_are_refused_over_http(service: Service):
    async with serve(service) as running, httpx.AsyncClient() as http:
        answer = await http.post(
            f"http://127.0.0.1:{running.http_port}/v1/models/tiny_gan:generate",
            content=gzip.compress(json.dumps({"count": 1}).encode()),
            headers={"Content-Encoding": "gzip"},
        )
        assert answer.status_code == 415
        assert "not compressed" in answer.json()["error"]["message"]


async def test_a_compressed_message_over_grpc_is_held_against_the_limit_at_its_full_size(service: Service):
    async with serve(service, max_message_bytes=100_000) as running:
        address = f"127.0.0.1:{running.grpc_port}"
        async with grpc.aio.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
            stub = ImageGenerationStub(channel)
            assert (await stub.GenerateImages(pb.GenerateImagesRequest(model="tiny_gan"))).images
            bomb = pb.GenerateImagesRequest(model="x" * 10_000_000)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GenerateImages(bomb)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

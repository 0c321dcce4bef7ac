"""Who asks, and what they may, over both transports."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from prometheus_client import CollectorRegistry

from serving.access.callers import ADMIN, ANYBODY, LOCAL, USE, Caller, came_straight, is_local
from serving.errors import Code, ServingError
from serving.pb import image_generation_pb2 as pb
from serving.pb.image_generation_pb2_grpc import ImageGenerationStub
from serving.process.ports import listen
from serving.service import RequestContext, Service
from serving.settings import Settings
from serving.transports.grpc_api import GrpcServer
from serving.transports.http_api import create_app
from serving.transports.http_server import run_http


def test_whoever_lacks_a_scope_is_told_the_remedy():
    with pytest.raises(ServingError, match="'ci' has the scopes use and this needs admin") as caught:
        RequestContext(caller=Caller(name="ci", scopes=frozenset({USE}))).require_admin()
    assert caught.value.code == Code.PERMISSION_DENIED
    with pytest.raises(ServingError, match="--api-keys"):
        RequestContext(caller=ANYBODY).require_admin()
    RequestContext(caller=Caller(name="root", scopes=frozenset({ADMIN}))).require_admin()


def test_a_context_that_nobody_filled_in_is_no_admin():
    with pytest.raises(ServingError):
        RequestContext().require_admin()


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_and_sockets_of_the_file_system_are_local(peer: str):
    assert is_local(peer)


@pytest.mark.parametrize("peer", ["127.0.0.6", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "testclient"])
def test_everybody_else_is_not(peer: str):
    """127.0.0.6 is where a sidecar of Istio hands on what comes from outside."""
    assert not is_local(peer)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "[::1]:8080", "[::1]"])
def test_a_request_to_this_machine_by_name_came_straight(host: str):
    assert came_straight(host, "", ["", ""])
    assert came_straight(host, f"http://{host}".lower(), [])


@pytest.mark.parametrize(
    ("host", "origin", "forwarded"),
    [
        ("127.0.0.1:8080", "https://evil.example", []),
        ("127.0.0.1:8080", "null", []),
        ("rebound.example:8080", "", []),
        ("rebound.example:8080", "http://rebound.example:8080", []),
        ("", "", []),
        ("127.0.0.1:8080", "", ["", "for=203.0.113.7"]),
    ],
)
def test_what_a_browser_or_a_proxy_sends_for_others_did_not(host: str, origin: str, forwarded: list[str]):
    assert not came_straight(host, origin, forwarded)


@asynccontextmanager
async def spied(service: Service, monkeypatch: pytest.MonkeyPatch):
    """Both transports over a service whose generate_images tells the context, and asks for an admin."""
    contexts: list[RequestContext] = []

    async def generate_images(_: Any, context: RequestContext) -> pb.GenerateImagesResponse:
        contexts.append(context)
        context.require_admin()
        return pb.GenerateImagesResponse()

    monkeypatch.setattr(service, "generate_images", generate_images)
    settings, stopping = Settings(grpc_port=0), asyncio.Event()
    server = GrpcServer(service, settings, lambda: None)
    app = create_app(service, settings, CollectorRegistry(), lambda: None)
    with listen("127.0.0.1", 0, "--http-port") as listener:
        tasks = [
            asyncio.create_task(server.run(stopping)),
            asyncio.create_task(run_http(app, listener, settings, stopping)),
        ]
        try:
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with (
                grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
                httpx.AsyncClient(base_url=base) as http,
            ):
                yield contexts, ImageGenerationStub(channel), http
        finally:
            stopping.set()
            await asyncio.gather(*tasks)


async def test_without_keys_whoever_asks_from_the_same_machine_is_an_admin(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    async with spied(service, monkeypatch) as (contexts, stub, http):
        await stub.GenerateImages(pb.GenerateImagesRequest(model="tiny_gan"))
        assert (await http.post("/v1/models/tiny_gan:generate", json={})).status_code == 200
    assert [context.caller for context in contexts] == [LOCAL, LOCAL]
    assert [context.client for context in contexts] == ["127.0.0.1", "127.0.0.1"]


async def test_what_is_forwarded_is_denied_with_the_remedy(service: Service, monkeypatch: pytest.MonkeyPatch):
    async with spied(service, monkeypatch) as (_, stub, http):
        forwarded = {"x-forwarded-for": "203.0.113.7"}
        with pytest.raises(grpc.aio.AioRpcError, match="--api-keys") as caught:
            await stub.GenerateImages(pb.GenerateImagesRequest(), metadata=tuple(forwarded.items()))
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        answer = await http.post("/v1/models/tiny_gan:generate", json={}, headers=forwarded)
        assert answer.status_code == 403
        assert answer.json()["error"]["status"] == "PERMISSION_DENIED"


async def test_a_page_of_a_stranger_is_no_admin(service: Service, monkeypatch: pytest.MonkeyPatch):
    async with spied(service, monkeypatch) as (_, _, http):
        headers = {"origin": "https://evil.example"}
        answer = await http.post("/v1/models/tiny_gan:generate", json={}, headers=headers)
        assert answer.status_code == 403

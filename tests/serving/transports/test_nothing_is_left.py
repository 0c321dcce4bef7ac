"""What a request held is free when it has ended, however it did, without the garbage collector."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from serving.errors import ServingError
from serving.pb import image_generation_pb2 as pb
from serving.requests.context import Tracked
from serving.service import Service

sys.path.insert(0, str(Path(__file__).parent))

import test_grpc_api
import test_http_api

_ASKED = 6
_REMEMBERED = 1  # the last one's error, until the next has come to its end

LONG = pb.GenerateImagesRequest(model="tiny_gaussian", count=64, steps=200, seed=7)
REFUSED = pb.GenerateImagesRequest(model="tiny_gaussian", count=2, steps=1_000_000, seed=7)
SHORT = pb.GenerateImagesRequest(model="tiny_gaussian", count=1, steps=2, seed=7)


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in stream]


async def cancelled(call: Any) -> None:
    await asyncio.sleep(0.05)
    call.cancel()


GRPC: dict[str, Callable[[Any], Any]] = {
    "answered": lambda stub: stub.GenerateImages(SHORT),
    "refused": lambda stub: stub.GenerateImages(REFUSED),
    "late": lambda stub: stub.GenerateImages(LONG, timeout=0.02),
    "cancelled": lambda stub: cancelled(stub.GenerateImages(LONG)),
    "stream answered": lambda stub: all_of(stub.StreamGenerateImages(SHORT)),
    "stream refused": lambda stub: all_of(stub.StreamGenerateImages(REFUSED)),
    "stream late": lambda stub: all_of(stub.StreamGenerateImages(LONG, timeout=0.02)),
    "stream cancelled": lambda stub: cancelled(stub.StreamGenerateImages(LONG)),
}

URL = "/v1/models/tiny_gaussian:generate"
HTTP: dict[str, Callable[[httpx.AsyncClient], Any]] = {
    "answered": lambda http: http.post(URL, json={"steps": 2, "seed": 7}),
    "refused": lambda http: http.post(URL, json={"steps": 1_000_000}),
    "late": lambda http: http.post(
        URL, json={"steps": 200, "count": 64, "seed": 7}, headers={"X-Request-Timeout": "0.02"}
    ),
    "cancelled": lambda http: http.post(URL, json={"steps": 200, "count": 64}, timeout=0.05),
}


def held() -> list[object]:
    # By type: asked for their class some modules warn.
    return [each for each in gc.get_objects() if type(each) in (ServingError, Tracked)]


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def nothing_is_left(ask: Callable[[], Any]) -> None:
    before = len(held())  # of other tests
    for _ in range(_ASKED):
        with suppress(grpc.RpcError, httpx.TimeoutException):
            await ask()
    async with asyncio.timeout(20):
        while len(held()) > before + _REMEMBERED:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ends", GRPC)
@pytest.mark.usefixtures("uncollected")
async def test_over_grpc(service: Service, ends: str) -> None:
    async with test_grpc_api.serve(service) as running:
        await nothing_is_left(lambda: GRPC[ends](running.stub))


@pytest.mark.parametrize("ends", HTTP)
@pytest.mark.usefixtures("uncollected")
async def test_over_http(service: Service, ends: str) -> None:
    async with test_http_api.serve(service) as http:
        await nothing_is_left(lambda: HTTP[ends](http))

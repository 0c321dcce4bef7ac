"""The service over HTTP, on a real port."""

import asyncio
import base64
import io
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from serving.process.ports import listen
from serving.service import Service
from serving.settings import Settings
from serving.transports.http_api import create_app, create_metrics_app
from serving.transports.http_server import run_http


@asynccontextmanager
async def serve(
    service: Service,
    *,
    not_ready: Callable[[], str | None] = lambda: None,
    registry: CollectorRegistry | None = None,
    metrics_alone: bool = False,
    **values: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    settings, registry = Settings(**values), registry or CollectorRegistry()
    stopping = asyncio.Event()
    app = (
        create_metrics_app(registry, not_ready)
        if metrics_alone
        else create_app(service, settings, registry, not_ready)
    )
    with listen("127.0.0.1", 0, "--http-port") as listener:
        task = asyncio.create_task(run_http(app, listener, settings, stopping))
        try:
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, timeout=30) as client:
                yield client
        finally:
            stopping.set()
            await task


def test_answers_are_not_held_back_for_acknowledgements():
    """Nagle's algorithm would: head and body are written one after the other."""
    with listen("127.0.0.1", 0, "--http-port") as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(service) as client:
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    return error


def field_of(response: httpx.Response) -> str:
    (detail,) = error_of(response)["details"]
    assert detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    return detail["fieldViolations"][0]["field"]


def png(side: int = 16, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side), "red").save(file, "PNG")
    return file.getvalue()


async def test_models_are_listed_and_described(http: httpx.AsyncClient):
    models = {model["name"]: model for model in (await http.get("/v1/models")).json()["models"]}
    assert models["tiny_gan"]["classLabels"] == ["zero", "one", "two"]
    assert models["tiny_gan"]["samplers"] == []
    assert (await http.get("/v1/models/tiny_gan")).json() == models["tiny_gan"]


async def test_an_unknown_model_is_not_found_and_the_others_are_named(http: httpx.AsyncClient):
    for response in (await http.get("/v1/models/tiny_gam"), await http.post("/v1/models/tiny_gam:generate")):
        assert response.status_code == 404
        assert error_of(response)["status"] == "NOT_FOUND"
        assert field_of(response) == "model"
        assert "tiny_gan" in error_of(response)["message"]


async def test_an_answer_in_json_holds_pictures_and_the_run(http: httpx.AsyncClient):
    body = {"class_label": "one", "count": 2, "seed": 5}
    answer = (await http.post("/v1/models/tiny_gan:generate", json=body)).json()
    assert [(image["width"], image["height"]) for image in answer["images"]] == [(8, 8), (8, 8)]
    assert Image.open(io.BytesIO(base64.b64decode(answer["images"][0]["data"]))).size == (8, 8)
    assert answer["run"]["seed"] == "5"


async def test_names_may_be_those_of_the_proto_or_lower_camel_case(http: httpx.AsyncClient):
    url = "/v1/models/tiny_gan:generate"
    snake = (await http.post(url, json={"class_label": "two", "seed": 1})).json()
    camel = (await http.post(url, json={"classLabel": "two", "seed": "1"})).json()
    assert camel["images"] == snake["images"]


async def test_curl_with_d_and_an_accept_header_gets_the_picture_itself(http: httpx.AsyncClient):
    response = await http.post(
        "/v1/models/tiny_gan:generate",
        content=b'{"class_label":"one","seed":5}',
        headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "image/png"},
    )
    assert response.headers["content-type"] == "image/png"
    assert response.headers["atelier-seed"] == "5"
    assert Image.open(io.BytesIO(response.content)).size == (8, 8)


@pytest.mark.parametrize("media", ["image/jpeg", "image/webp"])
async def test_several_pictures_come_as_a_sheet_in_the_format_asked_for(http: httpx.AsyncClient, media: str):
    response = await http.post(
        "/v1/models/tiny_gan:generate",
        json={"count": 4},
        headers={"Accept": f"text/html;q=0.3, {media};q=0.9"},
    )
    picture = Image.open(io.BytesIO(response.content))
    assert response.headers["content-type"] == media == f"image/{picture.format.lower()}"
    assert picture.width > 16


async def test_a_bare_picture_is_translated_with_its_direction_in_the_query(http: httpx.AsyncClient):
    """As `curl --data-binary @in.png` sends it, and as somebody sends it who says what it is."""
    for kind in ("application/x-www-form-urlencoded", "image/png"):
        response = await http.post(
            "/v1/models/tiny_translator:translate?direction=a_to_b",
            content=png(),
            headers={"Content-Type": kind, "Accept": "image/png"},
        )
        pixels = np.asarray(Image.open(io.BytesIO(response.content)))
        assert pixels.shape == (16, 16, 3)
        assert (pixels == [0, 255, 255]).all()


async def test_what_the_query_says_counts_as_if_in_the_body(http: httpx.AsyncClient):
    response = await http.post("/v1/models/tiny_gan:generate?count=3&class_label=one&seed=5")
    body = {"count": 3, "class_label": "one", "seed": 5}
    assert (
        response.json()["images"]
        == (await http.post("/v1/models/tiny_gan:generate", json=body)).json()["images"]
    )


async def test_latents_go_there_and_back(http: httpx.AsyncClient):
    image = {"data": base64.b64encode(png(8, "L")).decode()}
    encoded = await http.post("/v1/models/tiny_vae:encode", json={"images": [image], "class_id": 0})
    latents = encoded.json()["latents"]
    assert latents[0]["shape"] == ["4"]
    decoded = await http.post("/v1/models/tiny_vae:decode", json={"latents": latents, "class_id": 0})
    assert len(decoded.json()["images"]) == 1
    walk = {"interpolation": {"from": {"latent": latents[0]}, "to": {"seed": 2}}, "count": 5, "class_id": 0}
    explored = await http.post("/v1/models/tiny_vae:explore", json=walk)
    assert len(explored.json()["images"]) == 5


async def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    events, name = [], ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            events.append((name, json.loads(line.removeprefix("data: "))))
    return events


async def test_a_stream_is_of_events_and_ends_with_the_result(http: httpx.AsyncClient):
    body = {"class_id": 1, "steps": 6, "seed": 1, "preview_every": 1}
    async with http.stream("POST", "/v1/models/tiny_gaussian:streamGenerate", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = await events_of(response)
    assert {name for name, _ in events[:-1]} == {"progress"}
    assert any(event["progress"]["previews"] for _, event in events[:-1])
    name, last = events[-1]
    assert name == "result"
    plain = await http.post("/v1/models/tiny_gaussian:generate", json=body)
    assert last["result"]["images"] == plain.json()["images"]


async def test_what_is_wrong_with_a_stream_at_once_is_a_plain_error(http: httpx.AsyncClient):
    response = await http.post("/v1/models/tiny_gaussian:streamGenerate", json={"sampler": "heum"})
    assert response.status_code == 400
    assert field_of(response) == "sampler"


async def test_what_goes_wrong_within_a_stream_is_its_last_event(http: httpx.AsyncClient, service: Service):
    async with http.stream(
        "POST",
        "/v1/models/tiny_gaussian:streamGenerate",
        json={"count": 256, "steps": 200, "class_id": 1, "guidance_scale": 3},
    ) as response:
        await service._repository._backend.unload("tiny_gaussian", 1)
        name, last = (await events_of(response))[-1]
    assert name == "error"
    assert last["error"]["status"] == "UNAVAILABLE"


async def test_a_deadline_that_cannot_be_met_is_refused_before_anything_is_computed(http: httpx.AsyncClient):
    response = await http.post(
        "/v1/models/tiny_gaussian:generate",
        json={"count": 256, "steps": 200, "class_id": 1, "guidance_scale": 3},
        headers={"X-Request-Timeout": "0.01"},
    )
    assert error_of(response)["status"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"count": 1,\n "seed" 2}', r"line 2, column 9"),
        (b"[1]", "must be an object"),
        (b'{"count": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"class_id": 1, "class_label": "one"}', "more than one condition"),
        (b'{"count": ' + b"1" * 5000 + b"}", "far too many digits"),
        (b'{"eta": ' + b"1" * 400 + b"}", "eta"),
        (b'{"count": 2, "format": "' + b"x" * 5000 + b'\\ud800"}', "xxx..."),
        (b'{"count": 2, "format": 1e999}', "format: inf is no value that it can have"),
        (b'{"count": 2, "format": "\\ud800"}', "format: '\\ud800' is no value that it can have"),
    ],
)
async def test_a_body_that_is_not_json_says_where(http: httpx.AsyncClient, body: bytes, said: str):
    response = await http.post(
        "/v1/models/tiny_gan:generate", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    assert said in error_of(response)["message"]


@pytest.mark.parametrize(
    ("url", "body", "field", "said"),
    [
        ("tiny_gan:generate", {"class_lable": "one"}, "class_lable", "it has class_label,"),
        ("tiny_vae:explore", {"interpolation": {"form": {}}}, "interpolation.form", "from"),
        ("tiny_translator:translate", {"images": [{"dat": ""}]}, "images[0].dat", "data"),
        ("tiny_gan:generate", {"count": "many"}, "count", "many"),
        ("tiny_gan:generate", {"seed": -1}, "seed", "-1"),
        ("tiny_gan:generate?count=1", {"count": 1}, "count", "say it once"),
        ("tiny_gan:generate?cuont=1", {}, "cuont", "count"),
        ("tiny_translator:translate?images=1", {}, "images", "in a body of JSON"),
        ("tiny_gan:generate", {"model": "tiny_vae"}, "model", "tiny_gan"),
        ("tiny_gan:generate", {"class_label": "eleven"}, "class_label", "zero, one, two"),
        ("tiny_gan:paint", {}, "verb", "generate"),
    ],
)
async def test_a_wrong_field_is_named_with_the_remedy(
    http: httpx.AsyncClient, url: str, body: dict[str, Any], field: str, said: str
):
    response = await http.post(f"/v1/models/{url}", json=body)
    assert response.status_code in (400, 404)
    assert field_of(response) == field
    assert said in error_of(response)["message"]


async def test_a_body_of_another_type_is_unsupported(http: httpx.AsyncClient):
    for url, kind in (("tiny_gan:generate", "image/png"), ("tiny_translator:translate", "text/csv")):
        response = await http.post(f"/v1/models/{url}", content=b"x", headers={"Content-Type": kind})
        assert response.status_code == 415
        assert "JSON" in error_of(response)["message"]


async def test_what_is_not_there_yet_says_so(http: httpx.AsyncClient):
    response = await http.post("/v1/models/tiny_gan:edit", json={})
    assert response.status_code == 501
    assert error_of(response)["status"] == "UNIMPLEMENTED"


async def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Service):
    """The client announces more than it ever sends: the answer must not wait for the rest."""
    async with serve(service, max_message_bytes=65_536) as client:
        url = httpx.URL(client.base_url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            b"POST /v1/models/tiny_gan:generate HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n{"
        )
        status = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        assert status.split()[1] == b"413"

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(10_000)

        response = await client.post("/v1/models/tiny_gan:generate", content=chunks())
        assert response.status_code == 413
        assert "65536 bytes" in error_of(response)["message"]


async def test_too_much_at_a_time_is_refused_with_retry_after(open_tiny: Any):
    async with open_tiny(max_pending_rows=1) as service, serve(service) as client:
        response = await client.post("/v1/models/tiny_gan:generate", json={"count": 200})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1


async def test_a_timeout_in_the_header_is_kept(http: httpx.AsyncClient):
    body = {"count": 200, "steps": 200}
    late = await http.post(
        "/v1/models/tiny_gaussian:generate", json=body, headers={"X-Request-Timeout": "0.02"}
    )
    assert late.status_code == 504
    wrong = await http.post("/v1/models/tiny_gan:generate", headers={"X-Request-Timeout": "soon"})
    assert wrong.status_code == 400
    assert field_of(wrong) == "X-Request-Timeout"


@pytest.mark.parametrize("padding", [0, 120_000])  # of so much uvicorn stops reading
@pytest.mark.parametrize("verb", ["generate", "streamGenerate"])
async def test_a_client_that_hangs_up_cancels_the_work(open_tiny: Any, verb: str, padding: int):
    registry = CollectorRegistry()

    def under_way() -> float:
        values = [
            sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "atelier_requests_in_flight"
        ]
        return sum(values)

    async with open_tiny(registry) as service, serve(service, registry=registry) as client:
        url = httpx.URL(client.base_url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        body = json.dumps({"count": 256, "steps": 200}).encode() + b" " * padding
        head = (
            f"POST /v1/models/tiny_gaussian:{verb} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode())
        if padding:
            await asyncio.sleep(0.1)  # its head is being handled when the body comes
        writer.write(body)
        async with asyncio.timeout(10):
            while not under_way():
                await asyncio.sleep(0.01)
            writer.transport.abort()
            while under_way():
                await asyncio.sleep(0.01)
        cancelled = registry.get_sample_value(
            "atelier_requests_total",
            {
                "method": {"generate": "GenerateImages"}.get(verb, "StreamGenerateImages"),
                "task": "generate",
                "model": "tiny_gaussian",
                "version": "1",
                "code": "CANCELLED",
            },
        )
    assert cancelled == 1


async def test_an_error_inside_is_logged_and_not_told(service: Service, caplog: pytest.LogCaptureFixture):
    async def broken(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    service.generate_images = broken  # a fault where no request can be at fault
    async with serve(service) as client:
        response = await client.post("/v1/models/tiny_gan:generate", headers={"X-Request-Id": "r-17"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "r-17" in error_of(response)["message"]
    assert "the secret of the house" in caplog.text


async def test_readiness_says_why_not_and_health_does_not_ask(service: Service):
    reasons: list[str | None] = ["the GPU is gone"]
    for alone in (False, True):
        reasons[0] = "the GPU is gone"
        async with serve(service, not_ready=lambda: reasons[0], metrics_alone=alone) as client:
            assert (await client.get("/healthz")).status_code == 200
            response = await client.get("/readyz")
            assert response.status_code == 503
            assert "the GPU is gone" in response.text
            reasons[0] = None
            assert (await client.get("/readyz")).status_code == 200


async def test_both_ports_give_figures(open_tiny: Any):
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        for alone in (False, True):
            async with serve(service, registry=registry, metrics_alone=alone) as client:
                response = await client.get("/metrics")
                assert response.headers["content-type"].startswith("text/plain")
                assert "# TYPE atelier_requests_in_flight gauge" in response.text


async def test_the_metrics_port_computes_nothing(service: Service):
    async with serve(service, metrics_alone=True) as client:
        response = await client.post("/v1/models/tiny_gan:generate")
    assert response.status_code == 404


async def test_card_and_samples_are_shown_where_there_are_any(http: httpx.AsyncClient):
    card = await http.get("/v1/models/tiny_gan/card")
    assert card.headers["content-type"].startswith("text/markdown")
    assert card.text == "# tiny_gan\n"
    for path in ("tiny_vae/card", "tiny_vae/samples.png", "nobody/card"):
        assert field_of(await http.get(f"/v1/models/{path}")) == "model"


async def test_a_path_that_is_not_there_is_an_error_of_the_same_shape(http: httpx.AsyncClient):
    assert error_of(await http.get("/v3/nothing"))["status"] == "NOT_FOUND"
    assert (await http.put("/v1/models")).status_code == 405


async def test_the_pages_load_nothing_from_elsewhere(http: httpx.AsyncClient):
    for path in ("/", "/docs"):
        response = await http.get(path)
        assert response.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in response.headers["content-security-policy"]
    for asset in ("app.js", "style.css", "icon.svg"):
        assert (await http.get(f"/web/{asset}")).status_code == 200
    assert (await http.get("/web/../settings.py")).status_code == 404


def test_a_taken_port_is_one_line_that_names_the_flag():
    from serving.process.ports import PortError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"127\.0\.0\.1:{port}: .* --http-port"):
            listen("127.0.0.1", port, "--http-port")

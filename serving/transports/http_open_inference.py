"""The Open Inference Protocol over HTTP, as Triton has it: translates, and nothing else."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.errors import Code, ServingError, not_found
from serving.oip import bodies
from serving.oip.inference import OpenInference
from serving.oip.json_messages import to_document
from serving.requests.context import RequestContext
from serving.settings import Settings
from serving.transports.http_errors import TooLargeError, status_and_headers
from serving.transports.http_requests import ClientGoneError, read_body, request_context, unless_gone
from serving.transports.off_loop import off_loop
from serving.transports.status import HTTP_CODES, internal_error

log = logging.getLogger(__name__)

NotReady = Callable[[], str | None]
Endpoint = Callable[[Request], Awaitable[Response]]

_NOT_READY = 400


def routes(inference: OpenInference, settings: Settings, not_ready: NotReady) -> list[Route]:
    """The routes below `/v2`."""
    api = _Api(inference, settings, not_ready)
    found = [
        _get("/v2", api.server_metadata),
        _get("/v2/health/live", api.live),
        _get("/v2/health/ready", api.ready),
        _get("/v2/models/stats", api.statistics),
        _post("/v2/repository/index", api.index),
        _post("/v2/repository/models/{model}/load", api.load),
        _post("/v2/repository/models/{model}/unload", api.unload),
        _get("/v2/systemsharedmemory/status", api.memory_status),
        _get("/v2/systemsharedmemory/region/{region}/status", api.memory_status),
        _post("/v2/systemsharedmemory/region/{region}/register", api.memory_register),
        _post("/v2/systemsharedmemory/region/{region}/unregister", api.memory_unregister),
        _post("/v2/systemsharedmemory/unregister", api.memory_unregister),
    ]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version:int}"):
        found += [
            _get(model, api.model_metadata),
            _get(f"{model}/ready", api.model_ready),
            _get(f"{model}/config", api.model_config),
            _get(f"{model}/stats", api.statistics),
            _post(f"{model}/infer", api.infer),
        ]
    return [*found, Route("/v2/{rest:path}", _answering(_nothing), methods=["GET", "POST"])]


class _Api:
    """The handlers of `/v2`."""

    def __init__(self, inference: OpenInference, settings: Settings, not_ready: NotReady) -> None:
        self._not_ready = not_ready
        self._inference = inference
        self._memory = inference.shared_memory
        self._settings = settings

    async def live(self, _: Request) -> Response:
        return Response()

    async def ready(self, _: Request) -> Response:
        return Response(status_code=200 if self._not_ready() is None else _NOT_READY)

    async def server_metadata(self, _: Request) -> Response:
        return _message(self._inference.server_metadata())

    async def model_ready(self, request: Request) -> Response:
        if self._inference.model_ready(*_named(request)):
            return Response()
        return JSONResponse({"error": "Model version not ready"}, _NOT_READY)

    async def model_metadata(self, request: Request) -> Response:
        return _message(self._inference.model_metadata(*_named(request)))

    async def model_config(self, request: Request) -> Response:
        return _message(self._inference.model_config(*_named(request)))

    async def statistics(self, request: Request) -> Response:
        return _message(self._inference.model_statistics(*_named(request)), everything=True)

    async def index(self, request: Request) -> Response:
        asked = bodies.read_json(await read_body(request, self._settings))
        found = self._inference.repository_index("", bodies.flag(asked, "ready"))
        return JSONResponse([to_document(model) for model in found.models])

    async def load(self, request: Request) -> Response:
        await self._inference.load_model("", *await self._control(request), request_context(request))
        return Response()

    async def unload(self, request: Request) -> Response:
        await self._inference.unload_model("", *await self._control(request), request_context(request))
        return Response()

    async def infer(self, request: Request) -> Response:
        asked = request_context(request)
        body = await read_body(request, self._settings, compressed=True)
        return await unless_gone(request, self._infer(request, body, asked))

    async def memory_status(self, request: Request) -> Response:
        found = self._memory.status(request.path_params.get("region", ""))
        return JSONResponse(
            [
                {"name": each.name, "key": each.key, "offset": each.offset, "byte_size": each.byte_size}
                for each in found.values()
            ]
        )

    async def memory_register(self, request: Request) -> Response:
        asked = bodies.read_json(await read_body(request, self._settings))
        self._memory.register(request.path_params["region"], *bodies.read_region(asked))
        return Response()

    async def memory_unregister(self, request: Request) -> Response:
        self._memory.unregister(request.path_params.get("region", ""))
        return Response()

    async def _control(self, request: Request) -> tuple[str, Iterable[str]]:
        asked = bodies.read_json(await read_body(request, self._settings))
        return request.path_params["model"], bodies.parameters_of(asked, "the request")

    async def _infer(self, request: Request, body: bytes, asked: RequestContext) -> Response:
        headers, limit = request.headers, self._settings.max_message_bytes
        encoding = headers.get("content-encoding", "").lower()
        body = await off_loop(partial(bodies.decompress, body, encoding, limit), len(body))
        if len(body) > limit:
            raise TooLargeError(limit, " when decompressed")
        read = partial(bodies.read_body, *_named(request), body, headers.get(bodies.HEADER_LENGTH))
        wanted = await off_loop(read, len(body))
        answer = await self._inference.infer(wanted.request, asked)
        size = sum(output.array.nbytes for output in answer.outputs if output.array is not None)
        content, header_length = await off_loop(partial(bodies.write_body, answer, wanted), size)
        said = {}
        if header_length is not None:
            said = {bodies.HEADER_LENGTH: str(header_length), "Content-Type": "application/octet-stream"}
        # Most clients accept compression whether they gain by it or not: who names one kind alone wants it.
        encoding = headers.get("accept-encoding", "").lower().strip()
        if encoding in ("gzip", "deflate"):
            content = await off_loop(partial(bodies.compress, content, encoding), len(content))
            said["Content-Encoding"] = encoding
        return Response(content, headers={"Content-Type": "application/json", **said})


def _named(request: Request) -> tuple[str, str]:
    """The model and the version in the path; empty for those that are not there."""
    version = request.path_params.get("version")
    return request.path_params.get("model", ""), "" if version is None else str(version)


def _message(message: Message, *, everything: bool = False) -> Response:
    return JSONResponse(to_document(message, everything=everything))


def _get(path: str, endpoint: Endpoint) -> Route:
    return Route(path, _answering(endpoint), methods=["GET"])


def _post(path: str, endpoint: Endpoint) -> Route:
    return Route(path, _answering(endpoint), methods=["POST"])


async def _nothing(request: Request) -> Response:
    raise not_found("path", f"Not Found: {request.method} {request.url.path}")


def _answering(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with errors as Triton's clients read them: `{"error": message}`."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientGoneError:
            return Response(status_code=HTTP_CODES[Code.CANCELLED])
        except ServingError as error:
            return JSONResponse({"error": error.message}, *status_and_headers(error))
        except Exception:
            log.exception("%s %s: internal error", request.method, request.url.path)
            told = internal_error(request.headers.get("x-request-id", "without id"))
            return JSONResponse({"error": told.message}, HTTP_CODES[told.code])

    return answer

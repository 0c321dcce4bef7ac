"""An OpenAPI 3.1 document of the HTTP interface, made from the proto's descriptors and comments."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from serving.transports.http_messages import PICTURES
from serving.transports.methods import METHODS, SERVICE, Method
from serving.transports.openapi_schemas import Json, read_comments, reference, schemas

_EXAMPLES: Mapping[str, tuple[str, Json]] = {
    "GenerateImages": ("digits_unet", {"class_label": "seven", "count": 4, "seed": "1"}),
    "StreamGenerateImages": ("digits_unet", {"class_label": "seven", "preview_every": 1}),
    "TranslateImages": ("shapes_cyclegan", {"direction": "a_to_b", "images": [{"data": "<base64>"}]}),
    "EditImages": ("shapes_unet", {"task": "TASK_INPAINT", "images": [{"data": "<base64>"}]}),
    "EncodeImages": ("digits_vae", {"class_label": "seven", "images": [{"data": "<base64>"}]}),
    "DecodeLatents": ("digits_vae", {"latents": [{"data": "<base64>", "shape": ["16"]}], "class_id": 7}),
    "ExploreLatents": (
        "digits_vae",
        {"interpolation": {"from": {"seed": "1"}, "to": {"seed": "2"}}, "class_label": "seven", "count": 8},
    ),
    "ScoreImages": ("digits_vae", {"images": [{"data": "<base64>"}]}),
}

# Markdown.
_DESCRIPTION = """

Every message is in proto3's JSON mapping. Fields may be written as in the proto (`class_label`) or in
lowerCamelCase (`classLabel`), and those at the top of a request may stand in the query as well. 64-bit
integers are strings in answers, as JavaScript would round them.

A POST with `Accept: image/png` (`image/jpeg`, `image/webp`) gets the picture itself: one image as it is,
several as a contact sheet, with what was done in the headers `Atelier-Seed`, `Atelier-Steps` and so on.
Where a request takes images its body may be one bare picture.

`X-Request-Timeout` says after how many seconds nobody waits any more; whoever hangs up cancels the work."""


def build() -> Json:
    """The document."""
    comments = read_comments()
    paths: dict[str, Json] = {}
    for method in METHODS.values():
        paths |= _paths(method, comments.get(f"{SERVICE.full_name}.{method.rpc}", ""))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atelier",
            "version": version("atelier"),
            "summary": "Pictures from generative models, over HTTP.",
            "description": comments[SERVICE.full_name].partition("\n")[0] + _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths | _OTHER_PATHS,
        "components": {"schemas": schemas(comments) | {"Error": _ERROR}, "securitySchemes": _KEYS},
        "security": [{}, *({name: []} for name in _KEYS)],
    }


def _paths(method: Method, comment: str) -> dict[str, Json]:
    path = {"ListModels": "/v1/models", "GetModel": "/v1/models/{model}"}.get(
        method.rpc, f"/v1/models/{{model}}:{method.verb}"
    )
    parameters = [_parameter("model", "path", "Name of the model.")] if "{model}" in path else []
    operation: Json = {
        "operationId": method.rpc[0].lower() + method.rpc[1:],
        "summary": _words(method.rpc),
        "tags": ["models" if method.verb is None else "images"],
        "parameters": parameters,
        "responses": {"200": _response(method), "default": _ERROR_RESPONSE},
    }
    if comment:
        operation["description"] = comment
    if method.verb is None:
        return {path: {"get": operation}}
    parameters.append(
        _parameter(
            "X-Request-Timeout", "header", "Seconds after which the client waits no more.", number=True
        )
    )
    model, example = _EXAMPLES[method.rpc]
    content: Json = {
        "application/json": {"schema": reference(method.request.DESCRIPTOR.name), "example": example}
    }
    if method.takes_images:
        content["image/*"] = {"schema": {"type": "string", "contentMediaType": "image/png"}}
    operation["requestBody"] = {"content": content, "required": True}
    operation["x-model"] = model
    return {path: {"post": operation}}


def _response(method: Method) -> Json:
    schema = reference(method.response.DESCRIPTOR.name)
    if method.streams:
        text = "Server-sent events `progress` and `result`, each with one of these as JSON, or `error`."
        return {"description": text, "content": {"text/event-stream": {"schema": schema}}}
    content: Json = {"application/json": {"schema": schema}}
    if method.gives_images:
        content |= {media: {"schema": {"type": "string", "contentMediaType": media}} for media in PICTURES}
    pictures = (
        " Or, by `Accept`, the picture itself: several as a contact sheet." if method.gives_images else ""
    )
    return {"description": f"The answer as JSON.{pictures}", "content": content}


def _parameter(name: str, where: str, description: str, *, number: bool = False) -> Json:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "number" if number else "string"},
    }


def _words(camel: str) -> str:
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in camel).strip()
    return words.capitalize()


# Needed where the gateway was given keys, and nowhere else.
_KEYS: Json = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}

_ERROR: Json = {
    "type": "object",
    "description": "What went wrong (AIP-193). `details` holds a google.rpc.BadRequest that names the field, "
    "and a google.rpc.RetryInfo where the same request may succeed later.",
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "status", "message", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "description": "The canonical code.", "examples": ["NOT_FOUND"]},
                "message": {"type": "string", "description": "The input at fault, and the remedy."},
                "details": {"type": "array", "items": {"type": "object"}},
            },
        }
    },
    "required": ["error"],
}

_ERROR_RESPONSE: Json = {
    "description": "An error.",
    "content": {"application/json": {"schema": reference("Error")}},
}


def _plain(operation: str, summary: str, media: str, *, model: bool = False, unready: bool = False) -> Json:
    responses: Json = {"200": {"description": summary, "content": {media: {"schema": {"type": "string"}}}}}
    if model:
        responses["default"] = _ERROR_RESPONSE
    if unready:
        responses["503"] = {"description": "Not ready, and why.", "content": responses["200"]["content"]}
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "tags": ["models" if model else "status"],
            "parameters": [_parameter("model", "path", "Name of the model.")] if model else [],
            "responses": responses,
        }
    }


_OTHER_PATHS: dict[str, Json] = {
    "/v1/models/{model}/card": _plain("getCard", "The model card", "text/markdown", model=True),
    "/v1/models/{model}/samples.png": _plain("getSamples", "A grid of samples", "image/png", model=True),
    "/healthz": _plain("getHealth", "Whether the gateway runs", "text/plain"),
    "/readyz": _plain("getReadiness", "Whether every model is loaded", "text/plain", unready=True),
    "/metrics": _plain("getMetrics", "Figures for Prometheus", "text/plain"),
}

"""HTTP bodies to requests and messages to JSON: proto3's JSON mapping, with errors that help."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from serving.errors import Code, ServingError, invalid, one_of
from serving.pb import image_generation_pb2 as pb
from serving.transports.http_errors import MediaTypeError
from serving.transports.json_mapping import read_document, to_document
from serving.transports.methods import Method

PICTURES: Mapping[str, pb.ImageFormat] = {
    "image/png": pb.IMAGE_FORMAT_PNG,
    "image/jpeg": pb.IMAGE_FORMAT_JPEG,
    "image/webp": pb.IMAGE_FORMAT_WEBP,
}
"""Media types in which a picture can be had, in the order of preference."""

_write_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# curl sends this type with -d and --data-binary unless told otherwise, whatever the body is.
_UNTYPED = ("", "application/x-www-form-urlencoded", "application/octet-stream", "text/plain")


def read_request(
    method: Method, model: str, query: Iterable[tuple[str, str]], content_type: str, body: bytes
) -> Message:
    """The request in a body of JSON, or of one bare picture, with top-level fields from the query too.

    Raises `ServingError` that names the place or the field at fault.
    """
    document: dict[str, Any] = {}
    picture = _is_picture(method, content_type, body)
    if body and not picture:
        document = _read_json(body)
    for name, value in query:
        if name in document:
            raise invalid(name, f"{name} is in the body and in the query; say it once")
        document[name] = _query_value(method.request.DESCRIPTOR, name, value)
    _check_names(method.request.DESCRIPTOR, document, path="")
    request = method.request()
    try:
        read_document(document, request)
    except json_format.ParseError as error:
        raise _parse_error(str(error)) from error
    asked = getattr(request, "model", "")
    if asked and asked != model:
        raise invalid("model", f"model {asked!r} in the body, {model!r} in the path: the path suffices")
    request.model = model  # type: ignore[attr-defined]
    if picture:
        request.images.add(data=body)  # type: ignore[attr-defined]
    return request


def to_json(message: Message) -> str:
    """A message in proto3's JSON mapping, fields without a value included."""
    return _write_json(to_document(message))


@lru_cache(maxsize=64)
def picture_type(accept: str) -> str | None:
    """The media type of the picture that an `Accept` header asks for, or None where it asks for JSON."""
    wanted: list[tuple[float, str]] = []
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            wanted.append((float(quality), media))
        except ValueError:
            continue
    for _, media in sorted(wanted, key=lambda pair: -pair[0]):
        if media in PICTURES:
            return media
        if media == "image/*":
            return "image/png"
        if media in ("application/json", "application/*", "*/*"):
            return None
    return None


def _is_picture(method: Method, content_type: str, body: bytes) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/json" or not body:
        return False
    if media.startswith("image/"):
        if not method.takes_images:
            raise MediaTypeError(f"{method.verb} takes no picture: send JSON, as application/json")
        return True
    if media in _UNTYPED:
        return method.takes_images and not body.lstrip().startswith(b"{")
    raise MediaTypeError(
        f"a body of type {media!r}: send JSON as application/json"
        + (", or one picture as image/png (curl --data-binary @in.png)" if method.takes_images else "")
    )


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
        ) from error
    except UnicodeDecodeError as error:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"the body is not JSON: byte {error.start} is not UTF-8"
        ) from error
    except ValueError as error:  # Python reads no number of thousands of digits
        raise ServingError(Code.INVALID_ARGUMENT, "the body has a number of far too many digits") from error
    except RecursionError as error:
        raise ServingError(Code.INVALID_ARGUMENT, "the body is JSON nested too deeply") from error
    if not isinstance(document, dict):
        raise ServingError(
            Code.INVALID_ARGUMENT, f"the body is a JSON {_json_type(document)}: it must be an object, {{...}}"
        )
    return document


def _json_type(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _query_value(descriptor: Any, name: str, value: str) -> Any:
    field = _fields(descriptor).get(name)
    if field is not None and (field.is_repeated or field.type == FieldDescriptor.TYPE_MESSAGE):
        raise invalid(name, f"{name} cannot stand in the query: send it in a body of JSON")
    if field is not None and field.type == FieldDescriptor.TYPE_BOOL:
        return {"true": True, "false": False}.get(value, value)
    return value


@cache
def _fields(descriptor: Any) -> dict[str, FieldDescriptor]:
    """Fields by the names that JSON may use: those of the proto and their lowerCamelCase."""
    return {name: field for field in descriptor.fields for name in (field.json_name, field.name)}


def _check_names(descriptor: Any, document: Mapping[str, Any], path: str) -> None:
    known = _fields(descriptor)
    for name, value in document.items():
        place = f"{path}{name}"
        field = known.get(name)
        if field is None:
            names = one_of((field.name for field in descriptor.fields), asked=name)
            raise invalid(place, f"no field {place!r} in {descriptor.name}; it has {names}")
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            continue
        if field.is_repeated and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _check_names(field.message_type, item, f"{place}[{index}].")
        elif isinstance(value, dict):
            _check_names(field.message_type, value, f"{place}.")


def _parse_error(message: str) -> ServingError:
    """The error of a value that does not fit its field, in words that name the field."""
    both = re.search(r'multiple "(\w+)" oneof fields', message)
    if both:
        oneof = both[1]
        return invalid(oneof, f"more than one {oneof} is given: give one alone")
    names = re.findall(r"Failed to parse (\w+) field: ", message)
    reason = re.sub(r"Failed to parse \w+ field: ", "", message).rstrip(".")
    field = ".".join(names)
    return invalid(field, f"{field}: {reason}") if field else ServingError(Code.INVALID_ARGUMENT, reason)

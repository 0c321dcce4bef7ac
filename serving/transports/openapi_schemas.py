"""JSON schemas of the proto's messages and enums, with its comments as descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from serving.pb import image_generation_pb2 as pb

Json = dict[str, Any]

_DESCRIPTORS = Path(__file__).parents[1] / "pb" / "image_generation.binpb"

# Field numbers within FileDescriptorProto and DescriptorProto: what paths in SourceCodeInfo are made of.
_MESSAGES, _ENUMS, _SERVICES, _FIELDS, _VALUES, _RPCS = 4, 5, 6, 2, 2, 2

_NUMBERS: Mapping[int, Json] = {
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {"type": ["string", "integer"], "format": "int64"},
    FieldDescriptor.TYPE_UINT64: {"type": ["string", "integer"], "format": "uint64"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}

_DURATION: Json = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$", "examples": ["0.012s"]}


def schemas(comments: Mapping[str, str]) -> dict[str, Json]:
    """A schema of each message and enum, by name, described by `comments` by full name."""
    messages: Iterable[Any] = pb.DESCRIPTOR.message_types_by_name.values()
    enums: Iterable[Any] = pb.DESCRIPTOR.enum_types_by_name.values()
    found = {message.name: _message_schema(message, comments) for message in messages}
    return found | {enum.name: _enum_schema(enum, comments) for enum in enums}


def reference(name: str) -> Json:
    """A reference to the schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def read_comments() -> dict[str, str]:
    """What the proto says of each message, field, enum, value, service and RPC, by full name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTORS.read_bytes()).file
    file = next(file for file in files if file.package == pb.DESCRIPTOR.package)
    names: dict[tuple[int, ...], str] = {}
    tables: list[tuple[int, int, Iterable[Any]]] = [
        (_MESSAGES, _FIELDS, file.message_type),
        (_ENUMS, _VALUES, file.enum_type),
        (_SERVICES, _RPCS, file.service),
    ]
    for kind, members, things in tables:
        for i, thing in enumerate(things):
            names[kind, i] = f"{file.package}.{thing.name}"
            for j, member in enumerate(_members(thing)):
                names[kind, i, members, j] = f"{file.package}.{thing.name}.{member.name}"
    return {
        names[tuple(location.path)]: cleandoc(location.leading_comments or location.trailing_comments)
        for location in file.source_code_info.location
        if tuple(location.path) in names
    }


def _members(thing: Any) -> Iterable[Any]:
    for attribute in ("field", "value", "method"):
        members = getattr(thing, attribute, None)
        if members is not None:
            return list(members)
    return []


def _message_schema(message: Any, comments: Mapping[str, str]) -> Json:
    alternatives = [
        "one at most of " + ", ".join(field.json_name for field in oneof.fields)
        for oneof in message.oneofs
        if len(oneof.fields) > 1
    ]
    description = ". ".join(filter(None, [comments.get(message.full_name, "").rstrip("."), *alternatives]))
    schema: Json = {
        "type": "object",
        "properties": {field.json_name: _field_schema(field, comments) for field in message.fields},
    }
    return schema | ({"description": _sentence(description)} if description else {})


def _field_schema(field: FieldDescriptor, comments: Mapping[str, str]) -> Json:
    comment = comments.get(field.full_name, "")
    description = {"description": _sentence(comment)} if comment else {}
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = _value_schema(field.message_type.fields_by_name["value"])
        return {"type": "object", "additionalProperties": values} | description
    schema = _value_schema(field)
    return ({"type": "array", "items": schema} if field.is_repeated else dict(schema)) | description


def _value_schema(field: FieldDescriptor) -> Json:
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Duration":
            return _DURATION
        return reference(field.message_type.name)
    if field.enum_type is not None:
        return reference(field.enum_type.name)
    return _NUMBERS[field.type]


def _enum_schema(enum: EnumDescriptor, comments: Mapping[str, str]) -> Json:
    said = [(value.name, comments.get(f"{enum.full_name}.{value.name}", "")) for value in enum.values]
    lines = [f"{name}: {comment}" for name, comment in said if comment]
    description = "\n\n".join(filter(None, [comments.get(enum.full_name, ""), *lines]))
    schema: Json = {"type": "string", "enum": [name for name, _ in said]}
    return schema | ({"description": description} if description else {})


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

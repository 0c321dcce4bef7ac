"""The protocol's messages as JSON, as Triton writes them: names of the proto, whole numbers as numbers."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def to_document(message: Message, *, everything: bool = False) -> dict[str, Any]:
    """The fields of a message; with `everything` those too that are at their default."""
    document = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if everything or field.has_presence or value:
            document[field.name] = _value(field, value, everything)
    return document


def _value(field: Any, value: Any, everything: bool) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        return {key: _single(of, each, everything) for key, each in value.items()}
    if field.is_repeated:
        return [_single(field, each, everything) for each in value]
    return _single(field, value, everything)


def _single(field: Any, value: Any, everything: bool) -> Any:
    if field.message_type is not None:
        return to_document(value, everything=everything)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value

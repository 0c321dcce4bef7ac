"""Proto3's JSON mapping, worked out once for a type of message instead of anew for every message.

Equal to `google.protobuf.json_format`, which takes several times as long and is asked where a document holds
anything but plain values of plain fields: values that are written in an unusual way, and whatever is wrong.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from reprlib import repr as shortened
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

_LONG = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_WHOLE = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32, *_LONG)
_REAL = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_FEW_DIGITS = 1e6
_LARGE = 1e38  # from about three times that on there is no such number of single precision
_SINGLE = struct.Struct("f")

_Convert = Callable[[Any], Any]


def to_document(message: Message) -> dict[str, Any]:
    """A message as a JSON object, fields without a value included."""
    document: dict[str, Any] = {}
    for name, shown, optional, write in _writers(message.DESCRIPTOR):
        if not optional or message.HasField(name):
            document[shown] = write(getattr(message, name))
    return document


def read_document(document: Mapping[str, Any], message: Message) -> None:
    """Sets the fields of an empty message that a JSON object names. Raises `json_format.ParseError`."""
    if not _read_plain(document, message):
        message.Clear()
        try:
            json_format.ParseDict(dict(document), message)
        except json_format.ParseError:
            raise
        except Exception as error:  # protobuf trips over some values: 1e999, or half a surrogate, for an enum
            raise json_format.ParseError(_stumbling_block(document, type(message))) from error


def _stumbling_block(document: Mapping[str, Any], kind: type[Message]) -> str:
    """What is wrong with a document, in protobuf's words, where protobuf finds none."""
    for name, value in document.items():
        try:
            json_format.ParseDict({name: value}, kind())
        except json_format.ParseError:
            continue
        except Exception:
            return f"Failed to parse {name} field: {shortened(value)} is no value that it can have."
    return "No message of this kind."


@cache
def _writers(descriptor: Descriptor) -> list[tuple[str, str, bool, _Convert]]:
    """Of each field its name, its name in JSON, whether it may be absent, and what writes its value."""
    return [(field.name, field.json_name, field.has_presence, _writer(field)) for field in descriptor.fields]


def _writer(field: FieldDescriptor) -> _Convert:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        value = _single_writer(message.fields_by_name["value"])
        return lambda entries: {_key(key): value(entry) for key, entry in entries.items()}
    single = _single_writer(field)
    return (lambda values: [single(each) for each in values]) if field.is_repeated else single


def _single_writer(field: FieldDescriptor) -> _Convert:
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Duration":
            return _duration
        known_to_protobuf = field.message_type.full_name.startswith("google.protobuf.")
        return json_format.MessageToDict if known_to_protobuf else to_document
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda content: base64.b64encode(content).decode()
    if field.cpp_type in _REAL:
        return _single if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else _real
    return str if field.cpp_type in _LONG else _as_it_is


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _as_it_is(value: Any) -> Any:
    return value


def _duration(value: Duration) -> str:
    """Seconds with 0, 3, 6 or 9 decimal places."""
    if value.seconds < 0 or not 0 < value.nanos < 10**9:
        return value.ToJsonString()
    return f"{value.seconds}.{value.nanos:09}".removesuffix("000").removesuffix("000") + "s"


def _real(value: float) -> float | str:
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _single(value: float) -> float | str:
    """A number of single precision in as few digits as tell it apart, and no less than six."""
    if not isfinite(value):
        return _real(value)
    if -_FEW_DIGITS < value < _FEW_DIGITS and value.is_integer():
        return value
    shortest = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next(number for number in shortest if _SINGLE.unpack(_SINGLE.pack(number))[0] == value)


def _read_plain(document: Mapping[str, Any], message: Message) -> bool:
    """Sets the fields if all of them are plain; else returns False, with some of them set."""
    readers = _readers(message.DESCRIPTOR)
    known = set()
    for name, value in document.items():
        field, place, read = readers.get(name, _UNKNOWN)
        plain = read(value)
        if plain is None or place in known:
            return False
        known.add(place)
        try:
            setattr(message, field, plain)
        except (TypeError, ValueError):  # out of range, or text that is no Unicode
            return False
    return True


@cache
def _readers(descriptor: Descriptor) -> dict[str, tuple[str, str, _Convert]]:
    """By its names in JSON of each field of one plain value its name, that of the oneof it is part of or its
    own, and what reads a value: None where it is not plain."""
    return {
        name: (field.name, field.containing_oneof.name if field.containing_oneof else field.name, read)
        for field in descriptor.fields
        if not field.is_repeated and (read := _reader(field)) is not None
        for name in (field.name, field.json_name)
    }


def _reader(field: FieldDescriptor) -> _Convert | None:
    if field.enum_type is not None:
        numbers = {name: value.number for name, value in field.enum_type.values_by_name.items()}
        return lambda name: numbers.get(name) if type(name) is str else None
    if field.cpp_type in _WHOLE:
        return _read_whole
    if field.cpp_type in _REAL:
        return _read_real
    if field.type == FieldDescriptor.TYPE_STRING:
        return lambda text: text if type(text) is str else None
    if field.type == FieldDescriptor.TYPE_BOOL:
        return lambda flag: flag if type(flag) is bool else None
    return None


def _read_whole(value: Any) -> int | None:
    if type(value) is str and value.isascii() and value.isdigit():
        return int(value) if len(value) <= 20 else None
    return value if type(value) is int else None


def _read_real(value: Any) -> float | None:
    return value if type(value) in (int, float) and -_LARGE < value < _LARGE else None


def _not_plain(value: Any) -> None:
    return None


_UNKNOWN: tuple[str, str, _Convert] = ("", "", _not_plain)

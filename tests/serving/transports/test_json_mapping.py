"""The JSON mapping against protobuf's own, for every message of the API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from serving.pb import image_generation_pb2 as pb
from serving.transports.json_mapping import read_document, to_document
from serving.transports.methods import METHODS, SERVICE

REQUESTS = [method.request for method in METHODS.values()]
RESPONSES = [method.response for method in METHODS.values()]

WHOLE = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}

# What clients write where a field wants something else, or write in an unusual way.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["1", "-1", "1e3", "1.5", " 7", "٣", "0x1", "00012", "9" * 30, "NaN", "Infinity", "\ud800"]
    ),
    st.sampled_from(["IMAGE_FORMAT_PNG", "IMAGE_FORMAT_NONE", "2", "true"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["seed", "data", "x"]), st.integers(0, 3), max_size=2),
)


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values of a field, of one alone where it is repeated."""
    if field.message_type is not None:
        return messages(field.message_type)
    if field.enum_type is not None:
        return st.sampled_from([0, 1, 77])
    if field.cpp_type in WHOLE:
        return st.integers(*WHOLE[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=9)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.text(max_size=5)
    return st.floats(width=32)


def messages(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Messages with any of their fields set."""
    if descriptor.full_name == Duration.DESCRIPTOR.full_name:
        nanoseconds = st.integers(-(10**15), 10**15)
        return nanoseconds.map(lambda n: Duration(seconds=int(n / 10**9), nanos=n - int(n / 10**9) * 10**9))
    fields = {}
    for field in descriptor.fields:
        of = field.message_type
        if of is not None and of.GetOptions().map_entry:
            fields[field.name] = st.dictionaries(values(of.fields[0]), values(of.fields[1]), max_size=2)
        elif field.is_repeated:
            fields[field.name] = st.lists(values(field), max_size=2)
        else:
            fields[field.name] = values(field)
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: descriptor._concrete_class(**chosen))


def as_protobuf_reads(document: dict[str, Any], message: Message) -> Message | str | None:
    """The message, or what protobuf says is wrong; None where it trips over it."""
    try:
        json_format.ParseDict(document, message)
    except json_format.ParseError as error:
        return str(error)
    except Exception:
        return None
    return message


def as_read(document: dict[str, Any], message: Message) -> Message | str:
    """The same by the mapping that is tested."""
    try:
        read_document(document, message)
    except json_format.ParseError as error:
        return str(error)
    return message


@pytest.mark.parametrize("kind", [*REQUESTS, *RESPONSES], ids=lambda kind: kind.DESCRIPTOR.name)
@given(data=st.data())
def test_messages_are_written_as_protobuf_writes_them(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(kind.DESCRIPTOR))
    expected = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    assert json.dumps(to_document(message), sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(data=st.data())
def test_documents_are_read_as_protobuf_reads_them(kind: type[Message], data: st.DataObject) -> None:
    document = json_format.MessageToDict(data.draw(messages(kind.DESCRIPTOR)))
    names = [name for field in kind.DESCRIPTOR.fields for name in {field.name, field.json_name}]
    if names:
        document |= data.draw(st.dictionaries(st.sampled_from(names), ODD, max_size=2))
    found, expected = as_read(document, kind()), as_protobuf_reads(document, kind())
    assert isinstance(found, str) if expected is None else found == expected


@pytest.mark.parametrize("value", [float("inf"), "\ud800"])
def test_what_protobuf_trips_over_is_an_error_that_names_the_field(value: Any) -> None:
    with pytest.raises(json_format.ParseError, match=r"Failed to parse format field: .* is no value"):
        read_document({"count": 2, "format": value}, pb.GenerateImagesRequest())


def test_plain_documents_are_read_without_protobufs_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_format, "ParseDict", None)
    document = {
        "count": 2,
        "seed": "18446744073709551615",
        "classId": 3,
        "guidance_scale": 1.5,
        "sampler": "euler",
        "format": "IMAGE_FORMAT_PNG",
    }
    request = pb.GenerateImagesRequest()
    read_document(document, request)
    assert request == pb.GenerateImagesRequest(
        count=2, seed=2**64 - 1, class_id=3, guidance_scale=1.5, sampler="euler", format=pb.IMAGE_FORMAT_PNG
    )


def test_every_message_of_the_service_is_among_the_tested() -> None:
    assert len(REQUESTS) == len(RESPONSES) == len(SERVICE.methods)

"""HTTP bodies of inference requests: what they mean, and that nothing but an error comes of a bad one."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import Code, ServingError
from serving.oip.bodies import compress, decompress, read_body
from serving.oip.messages import Place

LIMIT = 10_000
TENSOR = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}


def body(**members: Any) -> bytes:
    return json.dumps({"inputs": [TENSOR], **members}).encode()


def tensor(**members: Any) -> bytes:
    said = {name: value for name, value in {**TENSOR, **members}.items() if value is not None}
    return json.dumps({"inputs": [said]}).encode()


def refusal(content: bytes, length: str | None) -> Code | None:
    try:
        read_body("model", "", content, length)
    except ServingError as error:
        return error.code
    return None


@given(st.binary(max_size=200), st.none() | st.text(max_size=5) | st.integers(-5, 300).map(str))
def test_no_bytes_end_in_anything_but_a_request_or_an_error(content: bytes, length: str | None):
    assert refusal(content, length) in (None, Code.INVALID_ARGUMENT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["id", "inputs", "outputs", "parameters"]), JSON))
def test_no_document_ends_in_anything_but_a_request_or_an_error(document: dict[str, Any]):
    assert refusal(json.dumps(document).encode(), None) in (None, Code.INVALID_ARGUMENT)


def test_elements_may_be_flat_or_nested():
    for data in ([1, 2.5, 3, 4], [[1, 2.5], [3, 4]]):
        (found,) = read_body("m", "", tensor(shape=[2, 2], data=data), None).request.inputs
        assert found.content.dtype == np.float32
        assert np.array_equal(found.content.ravel(), [1, 2.5, 3, 4])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tensor(data=["a", "b"]), "'data' of input 'x'"),
        (tensor(data=[None, 1]), "'data' of input 'x'"),
        (tensor(data=[[1], [1, 2]]), "different lengths"),
        (tensor(datatype="INT64", data=[1, 0.5]), "numbers as INT64"),
        (tensor(datatype="INT8", data=[1, 300]), "beyond the range of INT8"),
        (tensor(datatype="UINT8", data=[1, -1]), "beyond the range of UINT8"),
        (tensor(data=3), "'data'"),
        (tensor(data=None), "no field is set"),
        (tensor(parameters={"binary_data_size": 8}), "'binary_data_size' 'data' are set"),
        (tensor(shape=[1.5]), "'shape' of input 'x'"),
        (tensor(shape=None), "'shape'"),
        (tensor(shape=[True]), "'shape' of input 'x'"),
        (tensor(datatype=None), "'datatype'"),
        (tensor(name=None), "'name'"),
        (tensor(parameters=[1]), "'parameters' of input 'x'"),
        (body(id=7), "'id'"),
        (body(parameters={"priority": -1}), "'priority'"),
        (body(parameters={"timeout": "soon"}), "'timeout'"),
        (body(parameters={"binary_data_output": 1}), "'binary_data_output'"),
        (body(outputs=[{"name": "y", "parameters": {"classification": 0}}]), "output 'y'"),
        (b"[]", "must be an object"),
        (b"{", "JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": "\xff"}', "UTF-8"),
    ],
)
def test_what_makes_no_sense_is_named(content: bytes, words: str):
    with pytest.raises(ServingError) as caught:
        read_body("m", "", content, None)
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert words in caught.value.message


def test_what_is_beyond_float32_is_infinite():
    (found,) = read_body("m", "", tensor(data=[1e300, -1e300]), None).request.inputs
    assert np.array_equal(found.content, [np.inf, -np.inf])


def test_tensors_behind_the_json_are_taken_in_their_order():
    header = json.dumps(
        {
            "inputs": [
                {"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
                {
                    "name": "b",
                    "datatype": "FP32",
                    "shape": [1],
                    "parameters": {
                        "shared_memory_region": "r",
                        "shared_memory_offset": 8,
                        "shared_memory_byte_size": 4,
                    },
                },
                {"name": "c", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}},
            ],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
        }
    ).encode()
    found = read_body("m", "3", header + b"aaaacc", str(len(header)))
    a, b, c = found.request.inputs
    assert (bytes(a.content), b.content, bytes(c.content)) == (
        b"aaaa",
        Place(region="r", offset=8, byte_size=4),
        b"cc",
    )
    assert found.request.version == "3"
    assert found.binary
    assert found.binary_outputs == {"y": False}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_is_undone(encoding: str):
    content = bytes(range(256)) * 20
    assert decompress(compress(content, encoding), encoding, LIMIT) == content
    assert (gzip if encoding == "gzip" else zlib).decompress(compress(content, encoding)) == content


def test_a_body_that_grows_beyond_the_limit_grows_no_further():
    assert decompress(gzip.compress(bytes(100_000_000)), "gzip", LIMIT) == bytes(LIMIT + 1)
    assert decompress(gzip.compress(bytes(LIMIT)), "gzip", LIMIT) == bytes(LIMIT)


def test_a_body_that_was_cut_short_is_refused():
    with pytest.raises(ServingError, match="cut short"):
        decompress(gzip.compress(bytes(1000))[:-9], "gzip", LIMIT)

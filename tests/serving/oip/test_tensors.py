"""Tensors between the wire and numpy."""

import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from serving.oip.tensors import DTYPES, byte_size, classify, datatype, from_bytes, to_bytes


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_datatype_is_the_clients_and_comes_back_as_it_went(name: str):
    array = np.arange(6).reshape(2, 3).astype(DTYPES[name])
    assert np.dtype(triton_to_np_dtype(name)) == DTYPES[name]
    assert datatype(array.dtype) == name
    assert byte_size(name, array.shape) == array.nbytes
    assert np.array_equal(from_bytes(to_bytes(array), name, array.shape), array)


def test_bytes_are_little_endian_whatever_the_machine():
    array = np.arange(3, dtype=">f4")
    assert datatype(array.dtype) == "FP32"
    assert to_bytes(array) == np.arange(3, dtype="<f4").tobytes()


def test_elements_that_lie_askew_are_copied_and_others_are_not():
    content = b"." + np.arange(4, dtype=np.float32).tobytes()
    array = from_bytes(memoryview(content)[1:], "FP32", (2, 2))
    assert array.flags.aligned
    assert np.array_equal(array, [[0, 1], [2, 3]])
    whole = np.arange(4, dtype=np.float32).tobytes()
    assert np.shares_memory(from_bytes(whole, "FP32", (2, 2)), np.frombuffer(whole, np.uint8))


def test_the_greatest_elements_are_named_greatest_first():
    array = np.array([[[0.5, 2.0], [-1.0, 2.0]], [[0.0, 1.0], [3.0, -2.0]]], np.float32)
    found = classify(array, 2)
    assert found.tolist() == [[b"2.000000:1", b"2.000000:3"], [b"3.000000:2", b"1.000000:1"]]
    assert classify(array, 9).shape == (2, 4)
    assert np.array_equal(deserialize_bytes_tensor(to_bytes(found)), found.ravel())

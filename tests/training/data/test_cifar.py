from pathlib import Path

import numpy as np
import pytest

from training.data import DataError
from training.data.open import open_data

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 12, dtype=np.uint8)


def records(part: slice) -> bytes:
    """Images and labels as CIFAR-10's binary files hold them."""
    return np.concatenate([LABELS[part, None], IMAGES[part].reshape(-1, 3072)], 1).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data_batch_1.bin").write_bytes(records(slice(0, 4)))
    (tmp_path / "data_batch_2.bin").write_bytes(records(slice(4, 9)))
    (tmp_path / "test_batch.bin").write_bytes(records(slice(9, 12)))
    return tmp_path


def test_all_batches_are_read_in_order_with_their_labels(folder: Path) -> None:
    splits = open_data(f"cifar10:{folder}")
    np.testing.assert_array_equal(splits.train.images, IMAGES[:9])
    np.testing.assert_array_equal(splits.train.labels, LABELS[:9])
    np.testing.assert_array_equal(splits.held_out.images, IMAGES[9:])
    assert splits.train.spec.class_labels[0] == "airplane"


def test_a_truncated_batch_is_named(folder: Path) -> None:
    (folder / "data_batch_2.bin").write_bytes(records(slice(4, 9))[:-1])
    with pytest.raises(DataError, match=r"data_batch_2.bin is 15364 bytes long, no multiple of 3073"):
        open_data(f"cifar10:{folder}")


def test_a_label_beyond_ten_is_named(folder: Path) -> None:
    (folder / "test_batch.bin").write_bytes(bytes([77] * 3073))
    with pytest.raises(DataError, match=r"test_batch.bin holds the label 77"):
        open_data(f"cifar10:{folder}")


def test_the_file_that_is_missing_is_named(folder: Path) -> None:
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"lacks test_batch.bin: give the folder of CIFAR-10's binary"):
        open_data(f"cifar10:{folder}")

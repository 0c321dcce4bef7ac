import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from training.data import DataError
from training.data.open import open_data

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 5, 4), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 3


def idx(array: np.ndarray) -> bytes:
    """The array as an idx file holds it."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES[:20]))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:20])))
    (tmp_path / "t10k-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[20:])))
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(idx(LABELS[20:]))
    return tmp_path


def test_plain_and_gzipped_files_of_both_spellings_are_read(folder: Path) -> None:
    splits = open_data(f"mnist:{folder}")
    np.testing.assert_array_equal(splits.train.images[:, 0], IMAGES[:20])
    np.testing.assert_array_equal(splits.held_out.images[:, 0], IMAGES[20:])
    np.testing.assert_array_equal(splits.held_out.labels, LABELS[20:])
    assert splits.train.spec.class_labels == ("0", "1", "2")


def test_padding_adds_black_on_every_side(folder: Path) -> None:
    train = open_data(f"mnist:{folder}", pad=2).train
    assert (train.spec.height, train.spec.width) == (9, 8)
    np.testing.assert_array_equal(train.images[:, 0, 2:-2, 2:-2], IMAGES[:20])
    assert train.images[:, :, :2].max() == 0


def test_classes_take_the_names_they_are_given(folder: Path) -> None:
    assert open_data(f"mnist:{folder}", labels="shirt, shoe,bag").train.spec.class_labels == (
        "shirt",
        "shoe",
        "bag",
    )
    with pytest.raises(DataError, match=r"labels='shirt,shoe' of mnist names 2 classes, and there are 3"):
        open_data(f"mnist:{folder}", labels="shirt,shoe")


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "t10k-labels.idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"lacks t10k-labels-idx1-ubyte .* put the four idx files there"):
        open_data(f"mnist:{folder}")


def test_a_file_cut_short_is_named_with_what_it_lacks(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(idx(IMAGES[:20])[:-7])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte holds 393 bytes .* says 400 \(20×5×4\)"):
        open_data(f"mnist:{folder}")


def test_a_gzipped_file_cut_short_is_named(folder: Path) -> None:
    path = folder / "t10k-images.idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-images.idx3-ubyte.gz cannot be read .* get it again"):
        open_data(f"mnist:{folder}")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", idx(LABELS)])
def test_another_file_in_its_place_is_told_by_its_first_bytes(folder: Path, content: bytes) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=r"begins with 0x.* in 3 dimensions with 0x00000803"):
        open_data(f"mnist:{folder}")


def test_labels_that_are_not_of_the_images_are_refused(folder: Path) -> None:
    (folder / "t10k-labels.idx1-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(DataError, match=r"holds 10 images and t10k-labels.idx1-ubyte 30 labels"):
        open_data(f"mnist:{folder}")

import numpy as np
import pytest
import torch

from training.data import DataSpec
from training.data.arrays import ArrayData, digest_of, from_unit_range, to_unit_range

SPEC = DataSpec(name="some", channels=1, height=2, width=2)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_integers_survive_the_way_to_floats_and_back(levels: int) -> None:
    values = torch.arange(levels, dtype=torch.uint8)
    floats = to_unit_range(values, levels)
    assert floats[0] == -1
    assert floats[-1] == 1
    np.testing.assert_array_equal(from_unit_range(floats, levels), values.numpy())


def test_values_beyond_the_range_are_clipped() -> None:
    np.testing.assert_array_equal(from_unit_range(torch.tensor([-3.0, 3.0])), [0, 255])


def test_images_that_contradict_their_spec_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images of some are uint8 \(1, 3, 3\)"):
        ArrayData(spec=SPEC, images=np.zeros((4, 1, 3, 3), np.uint8))


def test_labels_of_another_count_are_refused() -> None:
    with pytest.raises(ValueError, match="labels of some are 3, its images 4"):
        ArrayData(spec=SPEC, images=np.zeros((4, 1, 2, 2), np.uint8), labels=np.zeros(3, np.int64))


def test_a_batch_does_not_share_memory_with_the_data() -> None:
    data = ArrayData(spec=SPEC, images=np.zeros((4, 1, 2, 2), np.uint8))
    data.batch(np.arange(4), np.random.default_rng(0)).images.fill_(1)
    assert data.images.max() == 0


def test_the_digest_tells_images_labels_and_shapes_apart() -> None:
    images = np.arange(8, dtype=np.uint8)
    digests = {
        digest_of(images),
        digest_of(images.reshape(2, 4)),
        digest_of(images.astype(np.int64)),
        digest_of(images[::-1]),
        digest_of(images, np.zeros(1, np.int64)),
    }
    assert len(digests) == 5
    assert digest_of(images, None) == digest_of(images)

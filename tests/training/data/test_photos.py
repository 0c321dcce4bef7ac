import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_sample_images

from training.data import DataError
from training.data.open import open_data


def test_a_patch_is_a_piece_of_the_photograph_of_its_label() -> None:
    train = open_data("photos", size=16, reduce=1).train
    batch = train.batch(np.array([0, 1, 6]), np.random.default_rng(0))
    photos = load_sample_images().images
    for image, label in zip(batch.images, batch.labels, strict=True):
        patch = np.rint((image.numpy() + 1) * 127.5).astype(np.uint8)
        windows = sliding_window_view(photos[label][:282], (16, 16), axis=(0, 1))
        assert (windows == patch).all((2, 3, 4)).any()


def test_no_row_of_a_photograph_is_both_trained_on_and_held_out() -> None:
    splits = open_data("photos", size=16, reduce=1)
    photo = load_sample_images().images[0].transpose(2, 0, 1)
    np.testing.assert_array_equal(splits.train.photos[0], photo[:, :282])
    np.testing.assert_array_equal(splits.held_out.images[0], photo[:, 282:298, :16])


def test_patches_depend_on_the_generator_alone_and_held_out_ones_on_nothing() -> None:
    splits = open_data("photos")
    indices = np.arange(8)
    one, again, other = (splits.train.batch(indices, np.random.default_rng(s)).images for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    fixed = [splits.held_out.batch(indices, np.random.default_rng(s)).images for s in (1, 2)]
    assert torch.equal(*fixed)


def test_a_patch_wider_than_what_is_held_out_is_refused() -> None:
    with pytest.raises(DataError, match="size=128 of photos must lie between 8 and 73"):
        open_data("photos", size=128)

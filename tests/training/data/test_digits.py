import numpy as np
import torch
from sklearn.datasets import load_digits

from training.data.open import open_data


def test_the_split_is_1200_to_597_stratified_and_without_a_common_image() -> None:
    splits = open_data("digits")
    assert (len(splits.train), len(splits.held_out)) == (1200, 597)
    shares = [np.bincount(part.labels, minlength=10) / len(part) for part in (splits.train, splits.held_out)]
    np.testing.assert_allclose(*shares, atol=0.002)
    index = {image.tobytes() for image in splits.train.images}
    assert not any(image.tobytes() in index for image in splits.held_out.images)


def test_ink_from_0_to_16_becomes_exactly_minus_one_to_one_in_seventeen_levels() -> None:
    train = open_data("digits").train
    images = train.batch(np.arange(1200), np.random.default_rng(0)).images
    assert images.dtype == torch.float32
    assert torch.equal(images.unique(), torch.linspace(-1, 1, 17))
    assert (train.spec.levels, train.spec.enlarge) == (17, 4)


def test_an_image_keeps_its_label_and_is_one_of_scikit_learns() -> None:
    train = open_data("digits").train
    bunch = load_digits()
    truth = {
        image.astype(np.uint8).tobytes(): target
        for image, target in zip(bunch.images, bunch.target, strict=True)
    }
    batch = train.batch(np.array([3, 700, 3]), np.random.default_rng(0))
    for image, label in zip(batch.images, batch.labels, strict=True):
        ink = ((image[0] + 1) * 8).to(torch.uint8).numpy()
        assert truth[ink.tobytes()] == label


def test_the_digest_is_the_same_at_every_opening() -> None:
    digest = open_data("digits").train.spec.digest
    assert digest.startswith("2af326f0")
    assert digest == open_data("digits").held_out.spec.digest

"""Reference rows, on data whose statistics are known."""

import numpy as np
import pytest

from export.references import class_gaussians, class_means, quantised


def test_class_means_are_the_means_of_their_classes():
    images = np.array([0.0, 1.0, 5.0], np.float32).reshape(3, 1, 1, 1)
    found = class_means(images, np.array([0, 0, 1]), np.array([1, 0, 0]))
    assert found.ravel().tolist() == [5.0, 0.5, 0.5]


def test_class_gaussians_have_the_moments_of_their_class():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 4000)
    images = (
        0.05 * rng.normal(size=(8000, 1, 2, 2)) + np.where(labels, 0.3, -0.3)[:, None, None, None]
    ).astype(np.float32)
    drawn = class_gaussians(images, labels, labels, levels=1001, rng=rng)
    for label, mean in ((0, -0.3), (1, 0.3)):
        assert drawn[labels == label].mean() == pytest.approx(mean, abs=0.01)
        assert drawn[labels == label].std(0).mean() == pytest.approx(0.05, rel=0.1)


def test_a_class_of_one_image_has_no_gaussian():
    with pytest.raises(ValueError, match="class 1 has 1 training images"):
        class_gaussians(
            np.zeros((3, 1, 2, 2), np.float32),
            np.array([0, 0, 1]),
            np.array([1]),
            levels=17,
            rng=np.random.default_rng(0),
        )


def test_quantised_images_take_the_nearest_of_their_levels():
    assert quantised(np.array([-1.0, -0.6, -0.4, 0.1, 1.0]), 3).tolist() == [-1.0, -1.0, 0.0, 0.0, 1.0]

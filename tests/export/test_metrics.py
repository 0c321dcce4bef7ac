"""Distances between sets of features, against closed forms."""

import numpy as np
import pytest

from export.metrics import (
    frechet_distance,
    kernel_distance,
    manifold,
    memorisation,
    nearest_distances,
    psnr,
    relative_frechet_distance,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form(rng):
    # Axis-aligned Gaussians: |m1 - m2|^2 + sum (s1 - s2)^2.
    real = rng.normal(0, 1, (200_000, 2)) * [1, 3] + [0, 1]
    fake = rng.normal(0, 1, (200_000, 2)) * [2, 1] + [3, 1]
    assert frechet_distance(real, fake) == pytest.approx(9 + 1 + 4, rel=0.02)


def test_the_frechet_distance_of_a_set_to_itself_is_zero_even_where_its_covariance_is_singular(rng):
    features = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 64))
    assert relative_frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_agrees_with_the_matrix_square_root(rng):
    from scipy.linalg import sqrtm

    real = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    fake = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + 0.5
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    shift = real.mean(0) - fake.mean(0)
    assert frechet_distance(real, fake) == pytest.approx(
        shift @ shift + np.trace(a + b - 2 * sqrtm(a @ b).real), rel=1e-6
    )


def test_the_relative_distance_does_not_depend_on_the_scale_of_the_features(rng):
    real, fake = rng.normal(size=(300, 4)), rng.normal(1, 2, size=(300, 4))
    assert relative_frechet_distance(7 * real, 7 * fake) == pytest.approx(
        relative_frechet_distance(real, fake)
    )


def test_the_kernel_distance_is_unbiased_for_equal_distributions_and_grows_with_a_shift(rng):
    real, same, far = (rng.normal(shift, 1, (1000, 8)) for shift in (0, 0, 1))
    assert abs(kernel_distance(real, same)) < 0.05
    assert kernel_distance(real, far) > 1


def test_a_copy_has_full_precision_recall_and_coverage(rng):
    real = rng.normal(size=(300, 5))
    found = manifold(real, real.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_a_collapsed_generator_keeps_its_precision_and_loses_recall_and_coverage(rng):
    real = rng.normal(size=(500, 5))
    fake = real[:1] + 1e-4 * rng.normal(size=(500, 5))
    found = manifold(real, fake)
    assert found.precision == 1
    assert found.recall < 0.02
    assert found.coverage < 0.1


def test_equal_distributions_have_a_density_of_one(rng):
    real, fake = rng.normal(size=(2, 2000, 3))
    assert manifold(real, fake).density == pytest.approx(1, abs=0.1)


def test_too_few_points_for_their_neighbours_are_refused():
    with pytest.raises(ValueError, match="4 points have no 5-th nearest neighbour"):
        manifold(np.zeros((4, 2)), np.zeros((10, 2)))


def test_copies_of_the_training_set_are_seen_as_memorised(rng):
    train, held_out, fresh = rng.normal(size=(3, 400, 4))
    assert memorisation(train, held_out, train[:100]) == 0
    assert memorisation(train, held_out, fresh) == pytest.approx(1, abs=0.15)


def test_nearest_distances_are_the_same_in_blocks_as_in_one(rng):
    queries, references = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    whole = np.linalg.norm(queries[:, None] - references[None], axis=2).min(1)
    np.testing.assert_allclose(nearest_distances(queries, references, block=7), whole)


def test_psnr_of_a_constant_error_is_its_closed_form():
    truth = np.zeros((3, 1, 4, 4))
    assert psnr(truth, truth + 0.2) == pytest.approx(20.0)

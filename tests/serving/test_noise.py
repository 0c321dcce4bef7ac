from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.noise import Stream, classes, normal

NOTED = [[-1.2040470838546753, -0.9188665747642517], [2.2530648708343506, -1.499213695526123]]


def test_the_noise_of_an_image_is_independent_of_the_count() -> None:
    many = normal(7, 9, (2, 3), Stream.PRIOR)
    few = normal(7, 4, (2, 3), Stream.PRIOR)
    np.testing.assert_array_equal(many[:4], few)


def test_seeds_images_streams_and_steps_have_noise_of_their_own() -> None:
    draws = [
        normal(seed, 2, (50,), stream, step)[image]
        for seed in (0, 1, 2**64 - 1)
        for image in (0, 1)
        for stream in (Stream.PRIOR, Stream.STEP, Stream.DECODER)
        for step in (0, 1, 2)
    ]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.6
    assert len({draw.tobytes() for draw in draws}) == len(draws)


def test_the_noise_is_standard_normal() -> None:
    noise = normal(3, 40, (1, 50, 50), Stream.PRIOR)
    assert noise.dtype == np.float32
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_the_noise_of_a_seed_stays_what_it_is() -> None:
    """A seed that somebody has noted must give the same picture in every later release."""
    np.testing.assert_array_equal(
        normal(42, 2, (2,), Stream.STEP, 3),
        np.array(NOTED, np.float32),
    )


def test_classes_are_drawn_evenly_and_independent_of_the_count() -> None:
    drawn = classes(5, 3000, 3)
    np.testing.assert_array_equal(classes(5, 10, 3), drawn[:10])
    assert np.bincount(drawn).min() > 900


def test_noise_does_not_depend_on_what_was_drawn_before() -> None:
    expected = normal(1, 2, (3,), Stream.STEP, 4)
    for before in (lambda: normal(9, 1, (5,), Stream.PRIOR), lambda: classes(3, 1, 7)):
        before()
        np.testing.assert_array_equal(normal(1, 2, (3,), Stream.STEP, 4), expected)


def test_noise_is_that_of_philox_with_the_key_and_counter_that_are_documented() -> None:
    bits = np.random.Philox(key=np.array([8, 1], np.uint64), counter=np.array([0, 0, 6, 1], np.uint64))
    expected = np.random.Generator(bits).standard_normal(5, np.float32)
    np.testing.assert_array_equal(normal(8, 2, (5,), Stream.STEP, 6)[1], expected)


def test_threads_draw_the_same_noise_side_by_side() -> None:
    expected = [normal(seed, 2, (3, 32, 32), Stream.STEP, 1) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            drawn = pool.map(lambda seed: normal(seed, 2, (3, 32, 32), Stream.STEP, 1), range(8))
            for one, other in zip(drawn, expected, strict=True):
                np.testing.assert_array_equal(one, other)

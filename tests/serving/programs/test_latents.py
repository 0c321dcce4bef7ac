from itertools import pairwise

import numpy as np
import pytest

from serving.programs.latents import arc, arithmetic, line, traversal

RANDOM = np.random.default_rng(0)
A, B = RANDOM.standard_normal((2, 3, 4)).astype(np.float32)


def test_a_line_has_even_steps_and_both_ends() -> None:
    points = line([A, B], 5)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points[[0, -1]], [A, B])
    np.testing.assert_allclose(np.diff(points, axis=0), np.broadcast_to((B - A) / 4, (4, 3, 4)), atol=1e-6)


def test_an_arc_between_points_of_one_length_keeps_it_and_turns_evenly() -> None:
    start, end = A / np.linalg.norm(A), B / np.linalg.norm(B)
    points = arc([start, end], 7)
    np.testing.assert_allclose(points[[0, -1]], [start, end], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(points.reshape(7, -1), axis=1), 1, atol=1e-6)
    turns = [np.vdot(one, other) for one, other in pairwise(points)]
    np.testing.assert_allclose(turns, turns[0], atol=1e-6)


@pytest.mark.parametrize("end", [A, -A, 2 * A, np.zeros_like(A)])
def test_where_there_is_no_one_arc_it_is_the_line(end: np.ndarray) -> None:
    np.testing.assert_allclose(arc([A, end], 5), line([A, end], 5), atol=1e-6)


def test_one_point_of_a_path_is_its_start() -> None:
    np.testing.assert_array_equal(line([A, B], 1)[0], A)
    np.testing.assert_allclose(arc([A, B], 1)[0], A, atol=1e-6)


def test_a_traversal_moves_one_coordinate_alone() -> None:
    points = traversal([A], dimension=5, low=-2, high=2, count=3)
    np.testing.assert_array_equal(points.reshape(3, -1)[:, 5], [-2, 0, 2])
    unmoved = np.delete(points.reshape(3, -1), 5, axis=1)
    np.testing.assert_array_equal(unmoved, np.broadcast_to(np.delete(A.reshape(-1), 5), (3, 11)))


def test_arithmetic_adds_and_takes_away() -> None:
    np.testing.assert_allclose(arithmetic([A, B, A], plus=2)[0], B, atol=1e-6)
    np.testing.assert_allclose(arithmetic([A], plus=1), A[None])
    np.testing.assert_allclose(arithmetic([A], plus=0)[0], -A)

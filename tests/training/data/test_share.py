import numpy as np

from training.data.share import held_out_of, shares

NAMES = [f"picture {i}" for i in range(4000)]


def test_shares_are_uniform_and_differ_by_purpose() -> None:
    one, other = shares(NAMES, "held out"), shares(NAMES, "half")
    np.testing.assert_allclose(np.quantile(one, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_a_name_keeps_its_side_when_others_come_and_go() -> None:
    held = held_out_of(NAMES, 0.1)
    np.testing.assert_array_equal(held_out_of(NAMES[1000:], 0.1), held[1000:])
    assert 0.08 < held.mean() < 0.12


def test_of_two_names_one_is_held_out_whatever_the_share() -> None:
    for share in (0.0, 0.5, 0.9):
        assert held_out_of(["a", "b"], share).sum() == 1

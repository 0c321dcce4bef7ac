import numpy as np
import pytest

from training.data import DataSpec
from training.data.arrays import ArrayData
from training.data.pairs import PairData

SPEC = DataSpec(name="pair", channels=1, height=1, width=1, domains=("a", "b"))


def numbered(count: int, start: int = 0) -> ArrayData:
    """One-pixel images whose values are their numbers."""
    values = np.arange(start, start + count, dtype=np.uint8)
    return ArrayData(spec=SPEC, images=values.reshape(-1, 1, 1, 1))


def numbers(images: np.ndarray) -> list[int]:
    return [int(value) for value in np.rint((images.numpy().ravel() + 1) * 127.5)]


def test_paired_images_come_with_their_own_targets() -> None:
    pairs = PairData(spec=SPEC, first=numbered(5), second=numbered(5, 100), paired=True)
    batch = pairs.batch(np.array([4, 0, 2]), np.random.default_rng(0))
    assert numbers(batch.images) == [4, 0, 2]
    assert numbers(batch.targets) == [104, 100, 102]


def test_unpaired_targets_are_drawn_by_the_generator_alone() -> None:
    pairs = PairData(spec=SPEC, first=numbered(50), second=numbered(50, 100), paired=False)
    indices = np.arange(50)
    one = pairs.batch(indices, np.random.default_rng(7))
    again = pairs.batch(indices[::-1].copy(), np.random.default_rng(7))
    assert numbers(one.targets) == numbers(again.targets)
    assert numbers(one.targets) != [100 + i for i in indices]
    assert len(set(numbers(one.targets))) > 20


def test_the_smaller_domain_begins_again_at_its_end() -> None:
    pairs = PairData(spec=SPEC, first=numbered(3), second=numbered(8, 100), paired=False)
    assert len(pairs) == 8
    assert numbers(pairs.batch(np.arange(8), np.random.default_rng(0)).images) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_pairs_of_unequal_count_are_refused() -> None:
    with pytest.raises(ValueError, match="paired domains of pair hold 3 and 4 images"):
        PairData(spec=SPEC, first=numbered(3), second=numbered(4), paired=True)

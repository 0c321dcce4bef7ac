import dataclasses

import numpy as np
import pytest

from training.data import DataError
from training.data.open import open_data
from training.data.shapes import CLASS_LABELS, COLOURS, SHAPES, Factors, draw_factors, render


def one(shape: str, colour: str = "red", **changes: float) -> Factors:
    """A single shape in the middle."""
    values = {"radius": 0.35, "x": 0.5, "y": 0.5, "rotation": 0.0} | changes
    return Factors(
        shape=np.array([list(SHAPES).index(shape)]),
        colour=np.array([list(COLOURS).index(colour)]),
        **{name: np.array([value], np.float32) for name, value in values.items()},
    )


def test_there_are_48_classes_as_many_of_each() -> None:
    train = open_data("shapes", count=480, held_out=96).train
    assert len(train.spec.class_labels) == 48
    assert set(np.bincount(train.labels)) == {10}
    assert CLASS_LABELS[train.labels[0]].split()[1] == list(SHAPES)[train.attributes["shape"][0]]


def test_the_factors_draw_the_very_images_again() -> None:
    held_out = open_data("shapes", count=480, held_out=96).held_out
    np.testing.assert_array_equal(render(Factors(**held_out.attributes)), held_out.images)


def test_drawing_one_alone_gives_the_same_pixels_as_drawing_it_among_others() -> None:
    factors = draw_factors(2000, np.random.default_rng(1))
    np.testing.assert_array_equal(render(factors)[1500:1501], render(factors.take(slice(1500, 1501))))


def test_the_area_of_a_drawn_circle_is_that_of_a_circle() -> None:
    picture = render(one("circle", "red"), size=64)[0, 0].astype(float)
    inside = (picture - picture.min()) / (picture.max() - picture.min())
    assert inside.sum() == pytest.approx(np.pi * (0.35 * 0.92 * 64) ** 2, rel=0.002)


def test_a_larger_picture_shows_the_same_as_a_small_one() -> None:
    factors = draw_factors(48, np.random.default_rng(2))
    small, large = render(factors, size=32), render(factors, size=128)
    reduced = large.reshape(48, 3, 32, 4, 32, 4).mean((3, 5))
    assert np.abs(reduced - small).mean() < 1


def test_rotation_is_counter_clockwise_in_degrees() -> None:
    upright, turned = render(one("heart")), render(one("heart", rotation=90))
    assert np.abs(np.rot90(upright[0], 1, (1, 2)).astype(int) - turned[0]).max() <= 2


def test_no_shape_touches_the_edge_of_its_picture() -> None:
    images = render(draw_factors(4800, np.random.default_rng(3)))
    frame = np.ones((32, 32), bool)
    frame[1:-1, 1:-1] = False
    assert (images[:, :, frame] == images[:, :, :1, 0]).all()


def test_shapes_of_one_size_and_place_differ_visibly_from_each_other() -> None:
    pictures = [render(one(shape))[0, 0] > 128 for shape in SHAPES]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert (first ^ second).sum() > 0.12 * (first | second).sum()


@pytest.mark.parametrize("striped", [False, True])
def test_the_colour_can_be_read_from_the_brightest_pixels(striped: bool) -> None:
    factors = draw_factors(960, np.random.default_rng(4))
    images = render(factors, striped=striped).transpose(0, 2, 3, 1).reshape(960, -1, 3).astype(float)
    brightest = images[np.arange(960), images.sum(2).argmax(1)]
    palette = np.array(list(COLOURS.values()))
    read = ((brightest[:, None] - palette) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(read, factors.colour)


def test_stripes_darken_every_shape_in_about_half_of_its_pixels_and_nothing_else() -> None:
    factors = draw_factors(480, np.random.default_rng(5))
    plain, striped = (render(factors, striped=kind).astype(int).sum(1) for kind in (False, True))
    outside = plain == plain[:, :1, :1]
    np.testing.assert_array_equal(plain[outside], striped[outside])
    share = ((striped < 0.75 * plain) & ~outside).sum((1, 2)) / (~outside).sum((1, 2))
    assert share.min() > 0.2
    assert share.max() < 0.6


def test_striped_training_shapes_are_not_the_plain_ones_and_held_out_ones_are() -> None:
    splits = open_data("shapes-stripes", count=96, held_out=48)
    train, held_out = splits.train, splits.held_out
    assert not np.isin(train.first.attributes["x"], train.second.attributes["x"]).any()
    factors = Factors(**held_out.first.attributes)
    assert dataclasses.asdict(factors).keys() == held_out.second.attributes.keys()
    batch = held_out.batch(np.arange(48), np.random.default_rng(0))
    np.testing.assert_array_equal(
        np.rint((batch.targets.numpy() + 1) * 127.5).astype(np.uint8), render(factors, striped=True)
    )
    np.testing.assert_array_equal(
        np.rint((batch.images.numpy() + 1) * 127.5).astype(np.uint8), render(factors)
    )


def test_another_seed_gives_other_shapes_and_the_same_seed_the_same() -> None:
    first, again, other = (
        open_data("shapes", count=48, held_out=48, seed=seed).train.spec.digest for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_count_below_one_of_each_class_is_refused() -> None:
    with pytest.raises(DataError, match="count=10 of shapes must lie between 48"):
        open_data("shapes", count=10)

import numpy as np

from training.data.sketch import line_drawing, line_drawings


def disc(inside: tuple[int, int, int] = (230, 60, 40)) -> np.ndarray:
    """A coloured disc of radius 40 on white, 128×128."""
    rows, columns = np.indices((128, 128)) - 63.5
    picture = np.full((3, 128, 128), 255, np.uint8)
    picture[:, np.hypot(rows, columns) < 40] = np.array(inside)[:, None]
    return picture


def test_the_drawing_of_a_disc_is_its_circle() -> None:
    drawing = line_drawing(disc(), 128, blur=1.0, pen=2.0)
    rows, columns = np.nonzero(drawing[0] < 128)
    radius = np.hypot(rows - 63.5, columns - 63.5)
    assert radius.min() > 37
    assert radius.max() < 43
    angles = np.unique(np.round(np.arctan2(rows - 63.5, columns - 63.5), 1))
    assert len(angles) >= 62


def test_the_width_of_the_line_is_that_of_the_pen() -> None:
    thin, thick = (line_drawing(disc(), 128, blur=1.0, pen=pen) for pen in (2.0, 4.0))
    inked = [(255 - drawing[0].astype(float)).sum() / 255 for drawing in (thin, thick)]
    assert np.isclose(inked[0] / (2 * np.pi * 40), 2, atol=0.6)
    assert np.isclose(inked[1] / (2 * np.pi * 40), 4, atol=0.6)


def test_colours_of_one_brightness_are_told_apart() -> None:
    picture = np.empty((3, 128, 128), np.uint8)
    picture[:, :, :64] = np.array([200, 60, 60])[:, None, None]
    picture[:, :, 64:] = np.array([60, 134, 60])[:, None, None]
    drawing = line_drawing(picture, 64, blur=0.7, pen=1.2)
    assert (drawing[0, 5:-5, 31:33].min(1) < 150).all()
    assert (drawing[0, :, :28] == 255).all()


def test_nothing_is_drawn_of_a_slow_gradient_or_a_blank() -> None:
    ramp = np.broadcast_to(np.linspace(80, 200, 128).astype(np.uint8), (3, 128, 128))
    blank = np.full((3, 128, 128), 255, np.uint8)
    assert (line_drawings(np.stack([ramp, blank]), 32) == 255).all()

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.grid import grid, save_grid


def test_images_run_along_eight_rows_and_are_enlarged_by_repeating_pixels():
    values = torch.linspace(-1, 1, 16)
    picture = grid(values.view(16, 1, 1, 1).expand(16, 1, 8, 8))
    assert picture.shape == (8 * 68 - 4, 2 * 68 - 4, 1)
    assert picture[64:68].min() == picture[64:68].max() == 128
    tiles = picture[::68, ::68, 0].reshape(-1)
    assert np.array_equal(tiles, np.round((values.numpy() + 1) * 127.5).astype(np.uint8))


def test_a_grid_that_is_not_full_ends_in_grey():
    picture = grid(torch.ones(11, 3, 64, 64))
    assert picture.shape == (6 * 68 - 4, 2 * 68 - 4, 3)
    assert picture[-1, -1].tolist() == [128, 128, 128]
    assert picture[-1, 0].tolist() == [255, 255, 255]


def test_a_saved_grid_is_a_picture_of_the_same_pixels(tmp_path: Path):
    for channels, mode in ((1, "L"), (3, "RGB")):
        picture = save_grid(torch.randn(10, channels, 16, 16), tmp_path / "samples" / "a.png")
        with Image.open(tmp_path / "samples" / "a.png") as read:
            assert read.mode == mode
            assert np.array_equal(np.asarray(read).reshape(picture.shape), picture)

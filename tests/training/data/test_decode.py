from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import DataError
from training.data.decode import decode, picture_suffixes

RED, BLUE = (220, 20, 30), (20, 40, 230)


def halves(width: int = 40, height: int = 40) -> Image.Image:
    """Red above, blue below."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (0, height // 2, width, height))
    return picture


def corners(pixels: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The colours at the top left and at the bottom left."""
    return tuple(pixels[:, 0, 0].tolist()), tuple(pixels[:, -1, 0].tolist())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".gif", ".ppm", ".jpg"])
def test_formats_of_all_kinds_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    halves().save(path, **({"lossless": True} if suffix == ".webp" else {}))
    top, bottom = corners(decode(path, 8, 3))
    np.testing.assert_allclose(top, RED, atol=6)
    np.testing.assert_allclose(bottom, BLUE, atol=6)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_greys_keep_their_brightness(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(np.full((9, 9), 0x8080, np.uint16)).save(path)
    assert (decode(path, 4, 3) == 128).all()


def test_a_palette_is_resolved_and_its_transparent_entry_becomes_white(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    palette = halves().quantize(2)
    palette.save(path, transparency=palette.getpixel((0, 0)))
    top, bottom = corners(decode(path, 8, 3))
    assert top == (255, 255, 255)
    np.testing.assert_allclose(bottom, BLUE, atol=2)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    path = tmp_path / "alpha.png"
    Image.new("RGBA", (8, 8), (0, 0, 0, 51)).save(path)
    assert (decode(path, 4, 3) == 204).all()


def test_grey_with_alpha_and_cmyk_are_read(tmp_path: Path) -> None:
    Image.new("LA", (8, 8), (100, 255)).save(tmp_path / "grey.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.tiff")
    assert (decode(tmp_path / "grey.png", 4, 3) == 100).all()
    assert corners(decode(tmp_path / "print.tiff", 4, 3))[0] == (255, 0, 0)


def test_a_picture_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    halves().save(tmp_path / "turned.png", exif=exif)
    top, bottom = corners(decode(tmp_path / "turned.png", 8, 3))
    assert (top, bottom) == (BLUE, RED)


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    wide = Image.new("RGB", (90, 30), RED)
    wide.paste(BLUE, (30, 0, 60, 30))
    wide.save(tmp_path / "wide.png")
    pixels = decode(tmp_path / "wide.png", 10, 3)
    assert pixels.shape == (3, 10, 10)
    np.testing.assert_allclose(pixels, np.broadcast_to(np.reshape(BLUE, (3, 1, 1)), (3, 10, 10)), atol=15)


def test_grey_is_asked_for_by_one_channel(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / "rgb.png")
    pixels = decode(tmp_path / "rgb.png", 4, 1)
    assert pixels.shape == (1, 4, 4)
    assert (pixels == 90).all()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "float"])
def test_a_file_that_is_no_whole_picture_is_named_with_the_remedy(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)).save(path)
    if damage == "float":
        path = tmp_path / "broken.tiff"
        Image.new("F", (8, 8), 0.5).save(path)
    else:
        path.write_bytes({"truncated": path.read_bytes()[:4000], "text": b"text", "empty": b""}[damage])
    with pytest.raises(DataError, match=r"broken\.\w+ cannot be read as a picture .* option broken=skip"):
        decode(path, 8, 3)


def test_a_picture_of_a_billion_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "vast.ppm"
    path.write_bytes(b"P6 40000 30000 255\n")
    with pytest.raises(DataError, match=r"vast.ppm cannot be read as a picture"):
        decode(path, 8, 3)


def test_endings_that_can_be_opened_are_known_and_those_of_documents_are_not() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp"} <= picture_suffixes()
    assert not {".pdf", ".txt"} & picture_suffixes()

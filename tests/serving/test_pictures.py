import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.errors import Code, ServingError
from serving.pb import image_generation_pb2 as pb
from serving.pictures import Pixels, contact_sheet, decode, encode, to_pixels, to_tensor

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (6, 5, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (6, 5, 1), np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> pb.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return pb.Image(data=file.getvalue())


def read(image: pb.Image, channels: int = 3, max_pixels: int = 10_000) -> Pixels:
    return decode(image, field="images[2]", channels=channels, max_pixels=max_pixels)


def refusal(image: pb.Image, **options: int) -> str:
    with pytest.raises(ServingError) as error:
        read(image, **options)
    assert error.value.code == Code.INVALID_ARGUMENT
    assert error.value.field == "images[2]"
    return error.value.message


@pytest.mark.parametrize("image_format", [pb.IMAGE_FORMAT_PNG, pb.IMAGE_FORMAT_RAW_U8, 0])
@pytest.mark.parametrize("pixels", [COLOUR, GREY, COLOUR[:1, :1], GREY[:1, :1]])
def test_lossless_formats_give_every_pixel_back(image_format: int, pixels: Pixels) -> None:
    message = encode(pixels, image_format)
    assert (message.height, message.width, message.channels) == pixels.shape
    np.testing.assert_array_equal(read(message, channels=pixels.shape[2]), pixels)


@pytest.mark.parametrize("image_format", [pb.IMAGE_FORMAT_JPEG, pb.IMAGE_FORMAT_WEBP])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats_give_about_the_same_picture_back(image_format: int, channels: int) -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    pixels = np.repeat(np.broadcast_to(ramp, (32, 32))[..., None], channels, axis=2)
    assert np.abs(read(encode(pixels, image_format), channels).astype(int) - pixels).mean() < 3


def test_a_colour_image_becomes_grey_for_a_grey_model_and_the_other_way() -> None:
    assert read(saved(Image.fromarray(COLOUR)), channels=1).shape == (6, 5, 1)
    np.testing.assert_array_equal(read(saved(Image.fromarray(GREY[..., 0]))), GREY.repeat(3, axis=2))


def test_a_16_bit_image_keeps_its_levels() -> None:
    levels = np.array([[0, 257, 32768], [65535, 65279, 128]], np.uint16)
    grey = read(saved(Image.fromarray(levels)), channels=1)
    np.testing.assert_array_equal(grey[..., 0], [[0, 1, 128], [255, 254, 0]])


def test_transparency_is_laid_on_white() -> None:
    rgba = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    rgba.putpixel((1, 0), (200, 0, 0, 0))
    expected = [[[200, 0, 0], [255, 255, 255]]]
    np.testing.assert_array_equal(read(saved(rgba)), expected)
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    np.testing.assert_array_equal(read(saved(palette, transparency=1)), expected)


def test_a_palette_image_has_the_colours_of_its_palette() -> None:
    palette = Image.new("P", (1, 1))
    palette.putpalette([12, 34, 56])
    np.testing.assert_array_equal(read(saved(palette)), [[[12, 34, 56]]])


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    assert read(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")).min() > 250


def test_a_picture_that_a_camera_turned_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read(saved(Image.fromarray(COLOUR), exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(COLOUR, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_named_in_the_error(kind: str) -> None:
    noise = Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8))
    whole = saved(noise, kind).data
    message = refusal(pb.Image(data=whole[: len(whole) // 2]))
    assert message.startswith("images[2] is truncated or broken")


def test_what_is_not_an_image_is_named() -> None:
    assert refusal(pb.Image(data=b"hello")) == "images[2] is not a PNG, JPEG or WebP image"
    assert "is empty" in refusal(pb.Image())
    gif = saved(Image.fromarray(COLOUR), "GIF")
    assert refusal(gif) == "images[2] is not a PNG, JPEG or WebP image"


@pytest.mark.parametrize(("width", "height"), [(101, 100), (11_000, 11_000), (40_000, 40_000)])
def test_an_image_of_too_many_pixels_is_refused_by_its_header(width: int, height: int) -> None:
    header = b"\x00\x00\x00\x0dIHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    check = zlib.crc32(header[4:]).to_bytes(4)
    data = b"\x89PNG\r\n\x1a\n" + header + check + b"\x00\x00\x00\x00IDAT" + zlib.crc32(b"IDAT").to_bytes(4)
    message = refusal(pb.Image(data=data))
    assert "10000" in message


def test_a_raw_image_says_what_it_lacks() -> None:
    assert "0×0 with 0 channels" in refusal(pb.Image(data=b"123", format=pb.IMAGE_FORMAT_RAW_U8))
    short = pb.Image(data=b"123", format=pb.IMAGE_FORMAT_RAW_U8, width=2, height=1, channels=3)
    assert refusal(short) == "images[2] has 3 bytes, and 1×2×3 raw needs 6"
    vast = pb.Image(data=b"1", format=pb.IMAGE_FORMAT_RAW_U8, width=2**30, height=2**30, channels=3)
    assert "scale it down" in refusal(vast)


def test_tensors_and_pixels_are_each_others_inverse() -> None:
    tensor = to_tensor(COLOUR, (-1, 1))
    assert tensor.shape == (3, 6, 5)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(to_pixels(tensor, (-1, 1)), COLOUR)


def test_values_outside_of_the_range_are_clipped() -> None:
    tensor = np.array([[[-3, -1, 0, 1, 3]]], np.float32)
    np.testing.assert_array_equal(to_pixels(tensor, (-1, 1))[0, :, 0], [0, 0, 128, 255, 255])


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (5, 3, 2), (16, 4, 4)]
)
def test_a_contact_sheet_is_about_square_and_holds_every_picture(count: int, columns: int, rows: int) -> None:
    pictures = [np.full((70, 80, 3), shade, np.uint8) for shade in range(count)]
    sheet = contact_sheet(pictures)
    assert sheet.shape == (rows * 72 + 2, columns * 82 + 2, 3)
    assert set(np.unique(sheet)) == {*range(count), 255}


def test_small_pictures_are_enlarged_in_a_sheet_without_blur() -> None:
    sheet = contact_sheet([COLOUR, GREY])
    assert sheet.shape[0] == 6 * 10 + 4
    np.testing.assert_array_equal(sheet[2:62:10, 2:52:10], COLOUR)

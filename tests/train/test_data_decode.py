"""Decoding: every kind of file gives the pixels that Pillow gives."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from train.data.decode import decode


def photo(height=40, width=60) -> Image.Image:
    """Smooth in parts, so that a JPEG of it looks like it."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(file: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(paper, image).convert("RGB"))


def translucent() -> Image.Image:
    image = photo().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


FILES = {
    "jpeg": encoded(photo(), "JPEG", quality=90),
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "grey jpeg": encoded(photo().convert("L"), "JPEG"),
    "jpeg and more bytes": encoded(photo(), "JPEG") + b"\0" * 50,
    "png": encoded(photo(), "PNG"),
    "grey png": encoded(photo().convert("L"), "PNG"),
    "palette": encoded(photo().convert("P"), "PNG"),
    "palette with transparency": encoded(photo().convert("P"), "PNG", transparency=0),
    "1 bit": encoded(photo().convert("1"), "PNG"),
    "rgba": encoded(translucent(), "PNG"),
    "grey with alpha": encoded(translucent().convert("LA"), "PNG"),
    "webp": encoded(photo(), "WEBP"),
    "bmp": encoded(photo(), "BMP"),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_pixels_are_those_of_pillow(file):
    found = decode(file)
    assert found is not None and found.dtype == np.uint8
    np.testing.assert_array_equal(found, by_pillow(file))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_by_exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(photo(), "JPEG", exif=exif)
    found = decode(file)
    assert found is not None and found.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    np.testing.assert_array_equal(found, by_pillow(file))


def test_cmyk_jpeg_looks_like_the_photo():
    file = encoded(photo().convert("CMYK"), "JPEG", quality=95)
    difference = np.abs(np.int32(decode(file)) - np.asarray(photo(), np.int32))
    assert difference.mean() < 3


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_keep_the_upper_8(channels):
    deep = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels), np.uint16)
    file = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    expected = np.broadcast_to(deep >> 8, (9, 7, 3))
    np.testing.assert_array_equal(decode(file), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_part_of_a_file_is_unreadable(kind, share):
    file = encoded(photo(), kind)
    assert decode(file) is not None
    assert decode(file[: int(share * len(file))]) is None


def test_other_bytes_are_unreadable():
    assert decode(b"no photo") is None

"""The one decoder: what people see, of every kind of file."""

import io
import re
import struct
import zlib
from pathlib import Path

import chex
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ssmjax.decode import MAX_PIXELS, SUFFIXES, decode, open_image
from tests import image_files
from tests.image_files import LOSSLESS, File, on_white, picture, png, saved, turned


def shown(file: File) -> None:
    chex.assert_trees_all_equal(decode(file.encoded), file.seen)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_formats_that_keep_all_pixels(kind):
    @settings(max_examples=60, deadline=None)
    @given(image_files.lossless_files((kind,)))
    def check(file):
        shown(file)

    check()


@settings(max_examples=200, deadline=None)
@given(image_files.png_files())
def test_png_of_every_depth_and_transparency(drawn):
    shown(drawn[0])


def by_pillow(encoded: bytes) -> np.ndarray | None:
    """What Pillow sees on opaque files; None where it finds them broken."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


def by_ours(encoded: bytes) -> np.ndarray | None:
    try:
        return decode(encoded)
    except ValueError:
        return None


@settings(max_examples=200, deadline=None)
@given(image_files.jpeg_files())
def test_jpeg_is_bit_for_bit_what_pillow_decodes(encoded):
    expected = by_pillow(encoded)
    assert expected is not None
    chex.assert_trees_all_equal(decode(encoded), expected)


@settings(max_examples=200, deadline=None)
@given(image_files.jpeg_files(), st.data())
def test_a_part_of_a_jpeg_is_refused_where_pillow_refuses_it(encoded, data):
    part = encoded[: data.draw(st.integers(0, len(encoded)))]
    expected = by_pillow(part)
    if expected is None:
        assert by_ours(part) is None
    else:
        chex.assert_trees_all_equal(decode(part), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "JPEG", "TIFF"])
def test_formats_that_lose_are_turned(kind, orientation):
    corner = np.zeros((16, 32, 3), np.uint8)
    corner[:8, :8] = 255  # Above, on the left.
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    found = decode(saved(Image.fromarray(corner), kind, orientation, **options))
    want = turned(corner, orientation)
    assert found.shape == want.shape
    assert np.abs(found.astype(int) - want).mean() < 8


def test_orientation_that_xmp_alone_tells():
    image, seen = picture("RGB", 5, 9, np.random.default_rng(0))
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    chunk = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    samples = np.asarray(image)
    chex.assert_trees_all_equal(
        decode(png(samples, 8, 2, chunks=((b"iTXt", chunk),))), turned(seen, 6)
    )


@pytest.mark.parametrize(
    "damage", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"xx", b"MM\0*\0\0\0\x08"]
)
def test_broken_exif_data_is_upright(damage):
    image, seen = picture("RGB", 5, 9, np.random.default_rng(0))
    damage = b"Exif\0\0" + damage
    chex.assert_trees_all_equal(decode(saved(image, "PNG", exif=damage)), seen)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_keep_the_upper_8(suffix, channels):
    deep = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels), np.uint16)
    encoded = cv2.imencode(suffix, deep[..., [2, 1, 0, 3][:channels] if channels > 1 else [0]])[1]
    colours = np.broadcast_to(deep[..., :3] >> 8, (9, 7, 3))
    alpha = deep[..., 3] >> 8 if channels == 4 else np.full((9, 7), 255)
    chex.assert_trees_all_equal(decode(encoded.tobytes()), on_white(colours, alpha))


def grey_tiff(bits: int, white_is_zero: bool, width: int, row: bytes) -> bytes:
    """A TIFF of one row of packed samples, written by hand."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 1 - white_is_zero}
    tags |= {273: 10 + 12 * 8 + 4, 278: 1, 279: len(row)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + row


@pytest.mark.parametrize(
    ("bits", "row", "seen"),
    [
        (1, b"\xa0", [255, 0, 255, 0]),
        (2, b"\x1b", [0, 85, 170, 255]),
        (4, b"\x0f\x18", [0, 255, 17, 136]),
        (8, b"\x00\xff\x07\x80", [0, 255, 7, 128]),
        (16, struct.pack("<4H", 0, 2**16 - 1, 0x07FF, 0x8000), [0, 255, 7, 128]),
    ],
)
def test_grey_of_a_tiff_that_counts_from_white(bits, row, seen):
    black = decode(grey_tiff(bits, False, 4, row))[0]
    chex.assert_trees_all_equal(black, np.repeat(np.array(seen, np.uint8)[:, None], 3, 1))
    chex.assert_trees_all_equal(decode(grey_tiff(bits, True, 4, row))[0], 255 - black)


def test_12_bits_keep_the_upper_8():
    found = decode(grey_tiff(12, False, 4, bytes.fromhex("000fff07f800")))[0]
    chex.assert_trees_all_equal(found, np.array([[0] * 3, [255] * 3, [7] * 3, [128] * 3], np.uint8))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_picture_is_taken(kind):
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = saved(first, kind, save_all=True, append_images=[second], **options)
    assert np.abs(decode(encoded)[0, 0].astype(int) - (200, 0, 0)).max() < 12


def test_transparent_colour_of_a_gif():
    index = np.arange(16, dtype=np.uint8).reshape(4, 4) % 5
    image = Image.fromarray(index)
    palette = np.random.default_rng(0).integers(0, 255, (5, 3)).astype(np.uint8)
    image.putpalette(palette.tobytes())
    found = decode(saved(image, "GIF", transparency=3))
    chex.assert_trees_all_equal(found, on_white(palette[index], np.where(index == 3, 0, 255)))


def test_numbers_of_unknown_range_are_refused():
    image, seen = picture("I", 5, 9, np.random.default_rng(0))
    chex.assert_trees_all_equal(decode(saved(image, "TIFF")), seen)
    for value, mode, why in ((70_000, "I", "beyond 16 bits"), (0.5, "F", "floating-point")):
        image.paste(Image.new("I", (1, 1), int(value)))
        with pytest.raises(ValueError, match=why):
            decode(saved(image.convert(mode), "TIFF"))


@pytest.mark.parametrize(
    ("height", "width"), [(9_000, 12_000), (1, MAX_PIXELS), (MAX_PIXELS // 16_384, 16_384)]
)
def test_large_photos_are_read_without_a_warning(height, width):
    assert open_image(claiming(height, width)).size == (width, height)


@pytest.mark.parametrize(("height", "width"), [(16_384, 16_384), (10**5, 10**5), (2**31 - 1, 9)])
def test_larger_ones_are_refused(height, width):
    with pytest.raises(ValueError, match=r"[0-9]{9}"):
        decode(claiming(height, width))


def claiming(height: int, width: int) -> bytes:
    """A PNG whose header says that it is of this size."""
    small = png(np.zeros((1, 1, 1), int), 8, 0)
    header = b"IHDR" + struct.pack(">II", width, height) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


def test_no_image():
    for encoded in (b"", b"no photo", b"\x89PNG\r\n\x1a\n", bytes(100)):
        with pytest.raises(ValueError, match="begins like no image file that is known"):
            decode(encoded)


def test_the_pixels_may_be_written_to():
    image, _ = picture("RGB", 5, 9, np.random.default_rng(0))
    for kind, orientation in (("PNG", 1), ("PNG", 6), ("JPEG", 1), ("JPEG", 6)):
        found = decode(saved(image, kind, orientation))
        assert found.flags.writeable and found.flags.c_contiguous


def test_endings():
    common = {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
    assert common <= set(SUFFIXES) and not set(SUFFIXES) & {".eps", ".pdf", ".json", ".txt", ".mpg"}
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_what_follows_the_picture_is_ignored():
    image, _ = picture("RGB", 9, 7, np.random.default_rng(0))
    for kind in ("PNG", "BMP", "WEBP", "GIF", "TIFF", "JPEG", "QOI"):
        encoded = saved(image, kind)
        chex.assert_trees_all_equal(decode(encoded + b"\0" * 50), decode(encoded))


@settings(max_examples=300, deadline=None)
@given(image_files.lossless_files(), st.data())
def test_a_part_of_a_file_is_refused_or_shows_all_of_the_picture(file, data):
    """All of it where what is cut off is a mark or padding after the last pixel."""
    found = by_ours(file.encoded[: data.draw(st.integers(0, len(file.encoded) - 1))])
    if found is not None:
        chex.assert_trees_all_equal(found, file.seen)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "JPEG2000", "AVIF"])
def test_every_part_of_a_file_is_refused(kind):
    image, _ = picture("RGB", 9, 7, np.random.default_rng(0))
    encoded = saved(image, kind)
    for length in range(len(encoded)):
        assert by_ours(encoded[:length]) is None, length


def test_nothing_else_opens_image_files():
    """But what fetches CIFAR-10, whose sheets of pixels are verified."""
    root = Path(__file__).parents[2]
    found = {
        str(path.relative_to(root))
        for floor in ("kernels", "ssmjax", "train")
        for path in (root / floor).rglob("*.py")
        if re.search(r"Image\.open|\bimread|\bimdecode", path.read_text())
    }
    assert found == {"ssmjax/decode.py", "train/data/cifar10.py"}

"""Image files of every kind that Pillow writes, and what people see on them, computed apart."""

import io
import struct
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from hypothesis import strategies as st
from PIL import Image

# Where a pixel of the upright picture, [H,W], is stored, by EXIF's number.
STORED = {
    1: lambda y, x, H, W: (y, x),
    2: lambda y, x, H, W: (y, W - 1 - x),
    3: lambda y, x, H, W: (H - 1 - y, W - 1 - x),
    4: lambda y, x, H, W: (H - 1 - y, x),
    5: lambda y, x, H, W: (x, y),
    6: lambda y, x, H, W: (W - 1 - x, y),
    7: lambda y, x, H, W: (W - 1 - x, H - 1 - y),
    8: lambda y, x, H, W: (x, H - 1 - y),
}
# Formats that keep all pixels: the modes that Pillow writes, and with which options.
LOSSLESS = {
    "PNG": ("1 L LA P RGB RGBA I;16 I;16B", {}),
    "WEBP": ("L LA P PA RGB RGBA RGBX CMYK YCbCr LAB HSV", {"lossless": True, "exact": True}),
    "TIFF": ("1 L LA P PA RGB RGBA RGBX CMYK YCbCr LAB I I;16 I;16B", {}),
    "BMP": ("1 L P RGB", {}),
    "DIB": ("1 L P RGB", {}),
    "GIF": ("1 L P", {}),
    "JPEG2000": ("L LA RGB RGBA CMYK I;16", {}),
    "PPM": ("1 L RGB I I;16", {}),
    "ICO": ("1 L LA P RGB RGBA", {}),
    "QOI": ("RGB RGBA", {}),
    "DDS": ("L LA RGB RGBA", {}),
    "SGI": ("L RGB RGBA", {}),
    "MSP": ("1", {}),
    "XBM": ("1", {}),
    "TGA": ("1 L LA P RGB RGBA", {}),
}
_SAMPLING = (0x111111, 0x211111, 0x221111, 0x121111, 0x411111)  # 4:4:4 to 4:1:1.
WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO")
# Bits of a sample by the PNG's type of colour.
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First row, first column, and steps of the seven passes of an interlaced PNG.
_PASSES = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)


class File(NamedTuple):
    """An image file's bytes, and the picture [H,W,3] uint8 that people see on it."""

    encoded: bytes
    seen: np.ndarray


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """[h,w,3] uint8: colours [h,w] or [h,w,3] seen on white paper; halves are rounded up."""
    colours = colours[..., None].repeat(3, -1) if colours.ndim == 2 else colours
    alpha = alpha[..., None].astype(np.int64)
    return ((2 * (colours * alpha + 255 * (255 - alpha)) + 255) // 510).astype(np.uint8)


def turned(stored: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture of stored pixels [h,w,...]."""
    h, w = stored.shape[:2]
    H, W = (w, h) if orientation >= 5 else (h, w)
    y, x = np.indices((H, W))
    return stored[STORED[orientation](y, x, H, W)]


def picture(mode: str, height: int, width: int, rng: np.random.Generator):
    """A picture of noise as Pillow holds it, and what is seen on it, [height,width,3] uint8."""
    sizes, W_H = (height, width), (width, height)
    grey, alpha = rng.integers(0, 256, (2, *sizes), np.uint8)
    alpha[rng.random(sizes) < 0.5] = rng.choice([0, 255])
    rgb = rng.integers(0, 256, (*sizes, 3), np.uint8)
    palette = rng.integers(0, 256, (rng.choice([2, 4, 16, 256]), 3), np.uint8)
    opaque = np.full(sizes, 255, np.uint8)
    if mode == "1":
        bits = grey > 127
        return Image.fromarray(bits), on_white(bits.astype(np.uint8) * 255, opaque)
    if mode in ("P", "PA"):
        index = rng.integers(0, len(palette), sizes, np.uint8)
        stored = index if mode == "P" else np.stack([index, alpha], -1)
        image = Image.frombytes(mode, W_H, stored.tobytes())
        image.putpalette(palette.tobytes())
        return image, on_white(palette[index], opaque if mode == "P" else alpha)
    if mode.startswith("I"):
        deep = rng.integers(0, 2**16, sizes)
        stored = deep.astype({"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode])
        image = Image.frombytes(mode, W_H, stored.tobytes())
        return image, on_white(deep >> 8, opaque)
    if mode in ("L", "LA"):
        stored = grey if mode == "L" else np.stack([grey, alpha], -1)
        seen = on_white(grey, opaque if mode == "L" else alpha)
        return Image.frombytes(mode, W_H, stored.tobytes()), seen
    if mode in ("RGB", "RGBA", "RGBX"):
        stored = rgb if mode == "RGB" else np.concatenate([rgb, alpha[..., None]], -1)
        seen = on_white(rgb, alpha if mode == "RGBA" else opaque)
        return Image.frombytes(mode, W_H, stored.tobytes()), seen
    if mode == "HSV":
        image = Image.fromarray(rgb).convert("HSV")
        return image, np.asarray(image.convert("RGB"))
    count = len(Image.new(mode, (1, 1)).getbands())
    stored = rng.integers(0, 256, (*sizes, count), np.uint8)
    image = Image.frombytes(mode, W_H, stored.tobytes())
    return image, np.asarray(image.convert("RGB"))  # Whose colours are Pillow's by definition.


def saved(image: Image.Image, kind: str, orientation: int = 1, **options) -> bytes:
    """The file that Pillow writes."""
    if orientation > 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if kind == "ICO":
        options["sizes"] = [image.size]
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@st.composite
def lossless_files(draw, kinds=tuple(LOSSLESS)) -> File:
    """Files of the formats that keep all pixels, in every mode and orientation."""
    kind = draw(st.sampled_from(kinds))
    modes, options = LOSSLESS[kind]
    mode = draw(st.sampled_from(modes.split()))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    orientation = draw(st.integers(1, 8)) if kind in WITH_EXIF else 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image, seen = picture(mode, height, width, rng)
    return File(saved(image, kind, orientation, **options), turned(seen, orientation))


def png(
    samples: np.ndarray,
    depth: int,
    colour: int,
    *,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG of samples [h,w,channels], each of `depth` bits, written by hand."""
    h, w = samples.shape[:2]
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes]
    rows = b"".join(b"\0" + _packed(row, depth) for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlaced)
    whole = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in whole)


def _chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def _packed(row: np.ndarray, depth: int) -> bytes:
    bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


@st.composite
def png_files(draw) -> tuple[File, np.ndarray | None]:
    """PNGs of every depth and type of colour, with and without transparency, interlaced or not.

    The second is what is stored of those with one channel, [h,w]: grey values or indices.
    """
    colour = draw(st.sampled_from(sorted(PNG_DEPTHS)))
    depth = draw(st.sampled_from(PNG_DEPTHS[colour]))
    h, w, c = draw(st.integers(1, 20)), draw(st.integers(1, 20)), _CHANNELS[colour]
    interlaced, transparent = draw(st.booleans()), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = rng.integers(0, 2**depth, (h, w, c))
    top, chunks, alpha = samples * 255 // (2**depth - 1), [], np.full((h, w), 255)
    if depth == 16:
        top = samples >> 8
    if colour == 3:
        palette = rng.integers(0, 256, (2**depth, 3))
        chunks.append((b"PLTE", palette.astype(np.uint8).tobytes()))
        alphas = np.full(2**depth, 255)
        if transparent:
            some = draw(st.integers(1, 2**depth))
            alphas[:some] = rng.choice([0, 255, 77], some)
            chunks.append((b"tRNS", alphas[:some].astype(np.uint8).tobytes()))
        top, alpha = palette[samples[..., 0]], alphas[samples[..., 0]]
    elif colour in (4, 6):
        top, alpha = top[..., :-1], top[..., -1]
    elif transparent:
        key = samples[rng.integers(h), rng.integers(w)]
        chunks.append((b"tRNS", key.astype(">u2").tobytes()))
        same = samples == key if depth < 16 or c == 1 else samples >> 8 == key >> 8
        alpha = np.where(same.all(-1), 0, 255)
    seen = on_white(np.broadcast_to(top, (h, w, 3)), alpha)
    encoded = png(samples, depth, colour, chunks=tuple(chunks), interlaced=interlaced)
    return File(encoded, seen), samples[..., 0] if c == 1 else None


@st.composite
def jpeg_files(draw) -> bytes:
    """JPEG of every kind that Pillow and OpenCV write."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    image = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height))
    quality, progressive = draw(st.integers(1, 100)), draw(st.booleans())
    if draw(st.booleans()):
        sampling = draw(st.sampled_from(_SAMPLING))
        options = {
            cv2.IMWRITE_JPEG_QUALITY: quality,
            cv2.IMWRITE_JPEG_PROGRESSIVE: progressive,
            cv2.IMWRITE_JPEG_RST_INTERVAL: draw(st.integers(0, 3)),
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR: sampling,
        }
        flat = [int(value) for pair in options.items() for value in pair]
        return cv2.imencode(".jpg", np.asarray(image), flat)[1].tobytes()
    mode = draw(st.sampled_from(("1", "L", "RGB", "CMYK", "YCbCr")))
    kind, orientation = draw(st.sampled_from(("JPEG", "MPO"))), draw(st.integers(1, 8))
    options = {"quality": quality, "progressive": progressive}
    if mode == "RGB":
        options["keep_rgb"] = draw(st.booleans())
    return saved(image.convert(mode), kind, orientation, **options)


@st.composite
def other_files(draw) -> bytes:
    """Files of what Pillow changes when it writes them, and of modes that are refused."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    kind, mode = draw(
        st.sampled_from(
            (
                *(("AVIF", mode) for mode in LOSSLESS["WEBP"][0].split()),
                *(("WEBP", mode) for mode in LOSSLESS["WEBP"][0].split()),
                *(("GIF", mode) for mode in ("LA", "RGB", "RGBA")),
                *(("TIFF", "F"), ("PPM", "F"), ("BMP", "RGBA"), ("PPM", "RGBA"), ("SPIDER", "L")),
            )
        )
    )
    image, _ = picture("L" if mode == "F" else mode, height, width, rng)
    orientation = draw(st.integers(1, 8)) if kind in WITH_EXIF else 1
    return saved(image.convert("F") if mode == "F" else image, kind, orientation)

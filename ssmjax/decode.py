"""From the bytes of an image file to its pixels: the one decoder of training and commands.

The rule for every file:

- What the file is, is told by its content, never by its name; of animations and files of several
  pages the first picture is taken.
- The picture is turned as its EXIF orientation says, or else its XMP orientation.
- Transparent parts are laid on white, whether an alpha channel, a palette or a colour key says so.
- Samples of 12 and 16 bits become their upper 8; of 1, 2 and 4 bits, the highest becomes 255.
  Whole numbers of 32 bits are taken for 16 if all fit; floating-point numbers have no known range,
  so they are refused. A TIFF's grey may count from white.
- Grey becomes three equal channels; CMYK, YCbCr, Lab and palettes become RGB as Pillow does it;
  colour profiles are ignored.
- Bytes that end too early are refused; what follows the picture is ignored.

Pillow reads all headers, and the pixels too but for ordinary JPEG files: there OpenCV is faster and
gives the same ones bit for bit. That it can decode at half the size is not used: the pixels would
be others, and a random part of a photo is often not much larger than what the model takes.
"""

import io
import warnings
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

# The largest picture, height times width: twice Pillow's own first limit. Beyond it lie files made
# to fill the memory.
MAX_PIXELS = 2**29 // 3
# From half as many on, Pillow would warn.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Broken EXIF data, which many photos have, hinders nobody; see `orientation_of`.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

Image.init()
# What Pillow reads and writes without programs beside it, frequent ones first; not the formats of
# floating-point numbers alone and of macOS icons, none that it is about to drop, and not PCX, which
# cannot be told from a part of it.
FORMATS = tuple(
    name
    for name in (
        *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI"),
        *("DDS", "DIB", "SGI", "BLP", "MSP", "XBM", "TGA"),
    )
    if name in Image.OPEN
)
# What a whole file holds at the end of its picture, by formats where Pillow does not look for it.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG2000": b"\xff\xd9"}
PNG_DEPTH = 24  # Place of the byte in a PNG that tells the bits of a sample.
_WHITE_IS_ZERO = 0  # A TIFF's photometric interpretation.
_JPEG = ("JPEG", "MPO")  # The latter holds several JPEG pictures one after the other.
# What the names of such files end in, in lower case: .avif, .bmp, .jfif, .jpg, .tif and so on.
SUFFIXES = tuple(
    sorted(
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in FORMATS or name in _JPEG
    )
)

# By EXIF's number: what makes of the stored rows and columns those of the upright picture.
_TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
ON_THEIR_SIDE = (5, 6, 7, 8)  # Orientations whose height is the stored rows' width.


def decode(encoded: bytes) -> np.ndarray:
    """The picture in a file, as people see it, by the rule of this module.

    Args:
      encoded: the whole file, of one of FORMATS.

    Returns:
      [H,W,3] uint8, RGB, writable.

    Raises:
      ValueError: there is no such picture in the bytes, it is not whole, or has more than
        MAX_PIXELS; the message is the reason, in part of a sentence.
    """
    image = open_image(encoded)
    try:
        pixels = _by_opencv(encoded) if _is_ordinary_jpeg(image) else None
        if pixels is None or pixels.shape[1::-1] != image.size:
            pixels = _by_pillow(image, encoded)
    except Exception as error:  # Pillow's readers raise nearly anything for broken files.
        raise ValueError(_reason(error)) from error
    return _upright(pixels, orientation_of(image))


def open_image(encoded: bytes) -> Image.Image:
    """The header of an image file; Pillow has read no pixels yet.

    Raises:
      ValueError: as `decode`.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError("it begins like no image file that is known") from error
    except Exception as error:  # As in `decode`.
        raise ValueError(_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"it has {image.height:,} x {image.width:,} pixels, more than {MAX_PIXELS:,} in all"
        )
    if _ENDS.get(str(image.format), b"") not in encoded:
        raise ValueError("it ends too early")
    return image


def orientation_of(image: Image.Image) -> int:
    """EXIF's number, 1 to 8, for how the pixels at hand are turned; 1 where none is told.

    A TIFF whose pixels are loaded has been turned by Pillow, and gets 1.
    """
    try:
        number = image.getexif().get(ExifTags.Base.Orientation, 1)
        return number if number in _TURNS else 1
    except Exception:  # Broken EXIF data, which viewers overlook too.
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [h,w,...], turned as EXIF's number says: [H,W,...]."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _reason(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_ordinary_jpeg(image: Image.Image) -> bool:
    return image.format in _JPEG and image.mode in ("L", "RGB")


def _by_opencv(encoded: bytes) -> np.ndarray | None:
    """[h,w,3] uint8 as stored; None where OpenCV finds the file broken."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)


def _by_pillow(image: Image.Image, encoded: bytes) -> np.ndarray:
    """[h,w,3] uint8 as stored, transparent parts white."""
    image.load()
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known range")
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        return _of_16_bits(_whole_numbers(image), key)
    if image.format == "PNG" and key is not None and image.mode in ("L", "RGB"):
        # Pillow brings samples to 8 bits, but not the transparent colour.
        image.info["transparency"] = _in_8_bits(key, encoded[PNG_DEPTH])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _whole_numbers(image: Image.Image) -> np.ndarray:
    """Grey values [h,w], 0 black; Pillow gives a TIFF's of 12 and 16 bits as they are stored."""
    values = np.asarray(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if image.tag_v2[ExifTags.Base.BitsPerSample] == (12,):
            values = values << 4
        if image.tag_v2[ExifTags.Base.PhotometricInterpretation] == _WHITE_IS_ZERO:
            values = 2**16 - 1 - values
    return values


def _of_16_bits(values: np.ndarray, key: int | None) -> np.ndarray:
    """[h,w,3] uint8 of grey values [h,w] below 2**16; those that equal `key` are transparent."""
    low, high = values.min(), values.max()
    if low < 0 or high >= 2**16:
        raise ValueError(f"its pixels are whole numbers from {low:,} to {high:,}, beyond 16 bits")
    grey = (values >> 8).astype(np.uint8)
    if key is not None:
        grey[values == key] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _in_8_bits(key: int | tuple[int, ...], depth: int) -> int | tuple[int, ...]:
    """A PNG's transparent colour, of samples of `depth` bits."""
    if isinstance(key, tuple):
        return tuple(value >> 8 if depth == 16 else value % 256 for value in key)
    return key % 2**depth * 255 // (2**depth - 1)

"""Which files are pictures."""

from PIL import Image

Image.init()
# What the names of files end in that can be decoded, in lower case.
SUFFIXES = tuple(
    sorted(
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name
        in ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "MPO")
    )
)

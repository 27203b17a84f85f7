"""Images that their EXIF orientation turns, and annotations that may be of the picture not turned.

Images are read upright, and boxes and labels taken to be of the upright picture, as mmdetection and
mmsegmentation do, and as most tools show images that draw them. Where that is wrong, the sizes
mostly tell; where they cannot, since the picture is mirrored, upside down or square, it is said.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ssmjax.decode import ON_THEIR_SIDE, open_image, orientation_of
from train.data.fetching.fetch import DataError

LOOKED_AT = 1000  # Images of a split whose orientation is read when a run starts, at most.

# One of these is in every file with an EXIF orientation but TIFF files, whose beginnings follow.
# The turns of AVIF itself, which no viewer leaves out, are not looked for.
_MARKS = (b"Exif", b"eXIf", b"EXIF", b"exif", b"tiff:Orientation")
_TIFF = (b"II", b"MM")


def check_not_turned(path: Path, size: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Refuse annotations of an image as it is stored, where its EXIF orientation turns it.

    `size` is its height and width, upright; `annotated` those that the annotations are for.

    Raises:
      DataError: the two sizes differ by such a turn.
    """
    orientation = _orientation(path.read_bytes())
    if annotated != size and annotated == size[::-1] and orientation in ON_THEIR_SIDE:
        raise DataError(
            f"The image {path} has the EXIF orientation {orientation}, which turns it to "
            f"{size[0]} x {size[1]} pixels (height x width), but its annotations are for "
            f"{annotated[0]} x {annotated[1]}, the picture before the turn: turn them too, or "
            "remove the orientation from the file."
        )


def remarks(images: Sequence[Path], title: str, what: str) -> Iterator[str]:
    """Sentences on images whose size does not tell whether annotations are of the upright picture.

    Of more than LOOKED_AT images, so many are looked at, evenly spread. `what` is the annotations,
    as "boxes".
    """
    looked_at = images[:: -(-len(images) // LOOKED_AT)] if images else images
    found = [path for path in looked_at if _keeps_its_size(path)]
    if found:
        yield (
            f"{title}: {len(found):,} of {len(looked_at):,} images looked at are mirrored or "
            f"turned by their EXIF orientation, such as {found[0]}, and their size cannot tell "
            f"whether their {what} are too; they are taken to be of the upright picture."
        )


def _keeps_its_size(path: Path) -> bool:
    """Whether an image is turned by its orientation and has the same height and width before."""
    try:
        encoded = path.read_bytes()
        orientation = _orientation(encoded)
        if orientation == 1:
            return False
        image = open_image(encoded)
    except (OSError, ValueError):  # Refused when the image is needed.
        return False
    return orientation not in ON_THEIR_SIDE or image.width == image.height


def _orientation(encoded: bytes) -> int:
    # Pillow would decode a PNG to its end to find that it has none.
    if not encoded.startswith(_TIFF) and not any(mark in encoded for mark in _MARKS):
        return 1
    return orientation_of(open_image(encoded))

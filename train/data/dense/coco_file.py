"""Annotation files in COCO's format: read, and refused where they are broken."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from train.data.fetching.fetch import DataError

FARTHEST = 100_000  # Pixels: pycocotools overflows with points beyond a few times of it.
_GROUPS = 7  # Of five bits, which hold every difference of 32-bit numbers.


def _is_number(value: Any, bound: float = 1e15) -> bool:
    return isinstance(value, int | float) and abs(value) < bound


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_WHOLE = _is_whole, "a whole number of 64 bits"
_SIDE = (lambda value: _is_whole(value) and value > 0), "a whole number above 0"
_TEXT = (lambda value: isinstance(value, str) and value != ""), "a text"
_FIELDS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "categories": {"id": _WHOLE, "name": _TEXT},
    "images": {"id": _WHOLE, "file_name": _TEXT, "height": _SIDE, "width": _SIDE},
    "annotations": {
        "id": _WHOLE,
        "image_id": _WHOLE,
        "category_id": _WHOLE,
        "bbox": (_is_box, "four numbers, x, y, w, h, below 1e15"),
        "area": (_is_number, "a number below 1e15"),
        "iscrowd": (lambda value: value in (None, 0, 1), "0 or 1"),
    },
}
_OPTIONAL = ("iscrowd", "area")


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of an annotation file, with the fields that are needed.

    Returns:
      {"categories", "images" and "annotations": lists of dicts, "without_area": how many of the
      last do not tell theirs}; "iscrowd" is 0 where it is missing, and "area" that of the box.

    Raises:
      DataError: the file is missing or not JSON, or a field is missing or of another kind.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"The annotations {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(
            f"The annotations {path} are not JSON ({error}); copy them again."
        ) from error
    for part, fields in _FIELDS.items():
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise DataError(f'The annotations {path} have no list "{part}"; give a file of COCO.')
        for number, record in enumerate(content[part]):
            where = f'In {path}, entry {number} of "{part}"'
            if not isinstance(record, dict):
                raise DataError(f"{where} is {_shown(record)}; it must be an object.")
            for field, (fits, rule) in fields.items():
                if field not in record and field not in _OPTIONAL:
                    raise DataError(f'{where} has no "{field}".')
                if field in record and not fits(value := record[field]):
                    raise DataError(
                        f'{where} has the "{field}" {_shown(value)}; it must be {rule}.'
                    )
    for part in ("categories", "images"):
        if len({record["id"] for record in content[part]}) < len(content[part]):
            raise DataError(f"{path.name} has {part} with the same id; each needs its own.")
    without_area = [one for one in content["annotations"] if "area" not in one]
    for annotation in without_area:
        annotation["area"] = max(annotation["bbox"][2], 0) * max(annotation["bbox"][3], 0)
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(annotation.get("iscrowd") or 0)
    return {**content, "without_area": len(without_area)}


def check_outline(outline: Any, height: int, width: int, where: str) -> None:
    """Refuse a "segmentation" that is neither polygons nor an RLE of its image's size.

    Raises:
      DataError: saying what is wrong, and `where`.
    """
    if isinstance(outline, dict):
        size, pixels = outline.get("size", []), height * width
        if size != [height, width] or not all(map(_is_whole, size)):
            raise DataError(
                f"{where} has an RLE of the size {_shown(size)}; its image has {[height, width]}."
            )
        covered = _covered(outline.get("counts"), pixels)
        if covered != pixels:
            what = "a broken RLE" if covered is None else f"an RLE of {covered:,} pixels"
            raise DataError(f"{where} has {what}; its image has {pixels:,} pixels.")
        return
    if not isinstance(outline, list) or not outline:
        raise DataError(f"{where} has no outline; masks need polygons or an RLE.")
    for polygon in outline:
        if not _is_polygon(polygon):
            raise DataError(
                f"{where} has a broken polygon, {str(polygon)[:60]}; it must be x, y, x, y, ... of "
                f"three points or more, within {FARTHEST:,} pixels."
            )


def check_inside(outline: Any, height: int, width: int, where: str) -> None:
    """Refuse polygons outside their image, as `check_outline`, which has found nothing wrong."""
    if isinstance(outline, dict):
        return
    x, y = (np.concatenate([polygon[axis::2] for polygon in outline]) for axis in (0, 1))
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        raise DataError(
            f"{where} has its outline outside the image, which has {height} x {width} pixels."
        )


def run_lengths(text: str) -> np.ndarray | None:
    """What COCO's compressed form of RLE says.

    Args:
      text: numbers as characters from "0" on, each of five bits, the lowest first; 32 is added to
        all but a number's last, whose 16 is the sign. From the fourth on they are differences to
        the one two before.

    Returns:
      The lengths of the runs, int64, below 0 or too high where the text is wrong; None where it is
      no such text or ends within a number.
    """
    codes = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = codes & 32 == 0
    starts = np.flatnonzero(np.append(True, last[:-1]))
    groups = np.diff(starts, append=len(codes))
    if groups.max() > _GROUPS:
        return None
    place = np.arange(len(codes)) - np.repeat(starts, groups)
    runs = np.add.reduceat((codes & 31) << 5 * place, starts)
    runs -= np.where(codes[last] & 16, 1 << 5 * groups, 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _shown(value: Any) -> str:
    """The beginning of a value as it stands in the file: a text in quotation marks, or null."""
    return json.dumps(value, ensure_ascii=False)[:60]


def _covered(counts: Any, pixels: int) -> int | None:
    """How many pixels the runs of an RLE have; None if they are broken."""
    if isinstance(counts, list) and all(map(_is_whole, counts)):
        runs = np.array(counts, np.int64)
    else:
        runs = run_lengths(counts) if isinstance(counts, str) else None
    # Each by itself first, so that their sum cannot overflow.
    if runs is None or ((runs < 0) | (runs > pixels)).any():
        return None
    return int(runs.sum())


def _is_polygon(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
        return False
    return all(_is_number(number, FARTHEST) for number in value)

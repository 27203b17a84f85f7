"""Annotation files in COCO's format: read, and refused where they are broken."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from train.data.fetch import DataError


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


_WHOLE = _is_whole, "a whole number"
_SIDE = (lambda value: _is_whole(value) and value > 0), "a whole number above 0"
_TEXT = (lambda value: isinstance(value, str) and value != ""), "a text"
_FIELDS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "categories": {"id": _WHOLE, "name": _TEXT},
    "images": {"id": _WHOLE, "file_name": _TEXT, "height": _SIDE, "width": _SIDE},
    "annotations": {
        "id": _WHOLE,
        "image_id": _WHOLE,
        "category_id": _WHOLE,
        "bbox": (_is_box, "four numbers, x, y, w, h"),
        "area": (_is_number, "a number"),
    },
}


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of an annotation file, with the fields that are needed.

    Args:
      path: JSON in COCO's form.

    Returns:
      {"categories", "images" and "annotations": lists of dicts}.

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
                raise DataError(f"{where} is {str(record)[:60]}; it must be an object.")
            for field, (fits, rule) in fields.items():
                if field not in record:
                    raise DataError(f'{where} has no "{field}".')
                if not fits(record[field]):
                    value = str(record[field])[:60]
                    raise DataError(f'{where} has the "{field}" {value}; it must be {rule}.')
    for part in ("categories", "images"):
        if len({record["id"] for record in content[part]}) < len(content[part]):
            raise DataError(f"{path.name} has {part} with the same id; each needs its own.")
    return content


def check_outline(outline: Any, height: int, width: int, where: str) -> None:
    """Refuse what is neither polygons nor an RLE of an image's size.

    Args:
      outline: the "segmentation" of an annotation.
      height, width: of its image.
      where: what messages call it.

    Raises:
      DataError: saying what is wrong.
    """
    if isinstance(outline, dict):
        counts, size = outline.get("counts"), outline.get("size")
        if size != [height, width] or not isinstance(counts, list | str):
            raise DataError(
                f"{where} has an RLE of the size {size}; its image has {[height, width]}."
            )
        if isinstance(counts, list):
            covered = sum(counts) if all(_is_whole(n) and n >= 0 for n in counts) else -1
            if covered != height * width:
                said = f"an RLE of {covered:,} pixels" if covered >= 0 else "a broken RLE"
                raise DataError(f"{where} has {said}; its image has {height * width:,}.")
        return
    if not isinstance(outline, list) or not outline:
        raise DataError(f"{where} has no outline; masks need polygons or an RLE.")
    for polygon in outline:
        try:
            sound = len(polygon) >= 6 and len(polygon) % 2 == 0 and np.isfinite(polygon).all()
        except TypeError:
            sound = False
        if not sound:
            raise DataError(
                f"{where} has a broken polygon, {str(polygon)[:60]}; it must be x, y, x, y, ... of "
                "three points or more."
            )
    x, y = (np.concatenate([polygon[axis::2] for polygon in outline]) for axis in (0, 1))
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        raise DataError(
            f"{where} has its outline outside the image, which has {height} x {width} pixels."
        )

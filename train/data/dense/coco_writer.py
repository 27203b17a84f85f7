"""A data set that appears in one piece, with annotations in COCO's format."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ssmjax.atomic import replacing
from train.data.dense.files import pycocotools
from train.data.fetching.fetch import DataError, writing_into

_QUALITY = 95  # Of JPEG.


@contextlib.contextmanager
def new_data_set(path: Path) -> Iterator[Path]:
    """An empty folder to write a data set into; it becomes `path` when the block ends.

    After an error, or a kill, nothing is at `path`.

    Raises:
      DataError: there is something at `path`, or the disk is full or not writable.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"There is something at {path} already; remove it or name another folder.")
    with writing_into(path.parent):
        for leftover in path.parent.glob(f".{path.name}-*"):
            shutil.rmtree(leftover)
        with replacing(path) as folder:
            folder.mkdir()
            yield folder


class CocoWriter:
    """Collects the images of a split, in a folder to be made; label c is the category c + 1."""

    def __init__(self, class_names: Sequence[str], images: Path):
        images.mkdir(parents=True)
        self._folder = images
        categories = [{"id": c + 1, "name": name} for c, name in enumerate(class_names)]
        self._content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": categories,
        }

    def add(self, image: np.ndarray, boxes: np.ndarray, labels: Sequence[int]) -> str:
        """Write an image and note its objects; returns the name of its file, without the suffix.

        Args:
          image: [H,W,3] uint8, RGB.
          boxes: [G,4], (x1, y1, x2, y2).
          labels: G numbers of classes.
        """
        name = self._write(image)
        for (x1, y1, x2, y2), label in zip(np.asarray(boxes).tolist(), labels, strict=True):
            w, h = x2 - x1, y2 - y1
            self._note(label, {"bbox": [x1, y1, w, h], "area": w * h})
        return name

    def add_with_masks(
        self, image: np.ndarray, masks: Sequence[np.ndarray], labels: Sequence[int]
    ) -> str:
        """As `add`, of objects given by their masks [H,W] bool, none of them empty.

        Raises:
          DataError: pycocotools is not installed.
        """
        rle = pycocotools("mask")
        name = self._write(image)
        for mask, label in zip(masks, labels, strict=True):
            coded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            seen = {
                "bbox": rle.toBbox(coded).tolist(),
                "area": int(rle.area(coded)),
                "segmentation": {"size": coded["size"], "counts": coded["counts"].decode()},
            }
            self._note(label, seen)
        return name

    def save(self, annotations: Path) -> None:
        """Write the file of annotations."""
        annotations.parent.mkdir(exist_ok=True)
        annotations.write_text(json.dumps(self._content))

    def _write(self, image: np.ndarray) -> str:
        images = self._content["images"]
        name, (height, width) = f"{len(images):06d}", image.shape[:2]
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        (self._folder / f"{name}.jpg").write_bytes(encoded.tobytes())
        file = {"file_name": f"{name}.jpg", "height": height, "width": width}
        images.append({"id": len(images) + 1} | file)
        return name

    def _note(self, label: int, seen: dict[str, Any]) -> None:
        annotations, image = self._content["annotations"], len(self._content["images"])
        ids = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label) + 1}
        annotations.append(ids | {"iscrowd": 0} | seen)

"""Fixtures of the official code, and small data sets in the layouts of COCO and ADE20K."""

import json

import cv2
import numpy as np
import pytest

from tests.oracles import golden


@pytest.fixture(scope="session")
def units():
    """Single operations of the official code: name -> array."""
    return golden.arrays("downstream/units_a")


def random_image(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def annotation(number, image_id, bbox, **others):
    """An object in COCO's form whose outline is its box."""
    x, y, w, h = bbox
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 7,
        "bbox": list(bbox),
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [polygon],
    } | others


def coco_content(sizes, annotations):
    """Annotations of images 10, 20, ... of the given sizes; the classes are of 3 and 7."""
    return {
        "images": [
            {"id": 10 * (i + 1), "file_name": f"{i}.png", "height": h, "width": w}
            for i, (h, w) in enumerate(sizes)
        ],
        "categories": [{"id": 7, "name": "cup"}, {"id": 3, "name": "ant"}],
        "annotations": annotations,
    }


def write_coco(folder, content):
    """The paths of the annotation file and of the folder of its images."""
    for seed, image in enumerate(content["images"]):
        pixels = random_image(seed, image["height"], image["width"])
        write_image(folder / "images" / image["file_name"], pixels)
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json", folder / "images"


def write_pairs(folder, sizes, num_values):
    """Images and label images of random values below `num_values`, in `folder`'s two folders."""
    for i, (h, w) in enumerate(sizes):
        write_image(folder / "images" / f"{i}.png", random_image(i, h, w))
        labels = np.random.default_rng(i).integers(0, num_values, (h, w)).astype(np.uint8)
        write_image(folder / "labels" / f"{i}.png", labels)
    return folder / "images", folder / "labels"

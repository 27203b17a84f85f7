"""Tiles of aerial photos: which boxes each has, and that detection can read them."""

import json

import chex
import cv2
import numpy as np
import pytest

from train.data import trees
from train.data.dense.coco import open_coco

VOC = """<annotation><size><width>9</width></size>
<object><name>Tree</name><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>{}</annotation>"""


def test_boxes_of_voc():
    assert trees.boxes_of(VOC.format(1, 2, 30, 40.5, "").encode()).tolist() == [[1, 2, 30, 40.5]]
    assert trees.boxes_of(b"<annotation/>").shape == (0, 4)


def test_tiles():
    """100 x 70 in squares of 32: what is beyond 96 and 64 is left out."""
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    boxes = np.array([[2, 3, 10, 12], [26, 40, 40, 50], [24, 0, 40, 10], [94, 1, 99, 5]], float)
    tiles = trees.tiles(image, boxes, 32, 32)
    assert len(tiles) == 6
    want = {
        0: [[2, 3, 10, 12], [24, 0, 32, 10]],  # Half of the third is in each of two tiles.
        1: [[0, 0, 8, 10]],
        4: [[0, 8, 8, 18]],  # Of the second, 8 of 14 columns.
    }
    for number, (tile, inside) in enumerate(tiles):
        y, x = 32 * (number // 3), 32 * (number % 3)
        chex.assert_trees_all_equal(tile, image[y : y + 32, x : x + 32])
        assert inside.tolist() == want.get(number, [])


def test_overlapping_tiles_have_every_tree():
    rng = np.random.default_rng(3)
    corners = rng.integers(0, 110, (60, 2))
    boxes = np.concatenate([corners, corners + rng.integers(4, 18, (60, 2))], axis=1).astype(float)
    image = np.zeros((128, 128, 3), np.uint8)
    whole = {
        tuple(box + [x, y, x, y])
        for (y, x), (_, inside) in zip(
            np.ndindex(3, 3), trees.tiles(image, boxes, 64, 32), strict=True
        )
        for x, y in [(32 * x, 32 * y)]
        for box in inside
    }
    assert {tuple(box) for box in boxes} <= whole


def test_detection_reads_it(tmp_path, monkeypatch):
    asked = []

    def files(wheel, names, folder):
        asked.extend(names)
        image = cv2.imencode(".png", np.full((400, 400, 3), 90, np.uint8))[1].tobytes()
        voc = VOC.format(100, 50, 140, 90, "").encode()
        return {name: voc if name.endswith(".xml") else image for name in names}

    monkeypatch.setattr(trees, "wheel_files", files)
    trees.make(trees.TreesOptions(tmp_path / "trees"))
    folder = tmp_path / "trees"
    split = open_coco(folder / "annotations" / "eval.json", folder / "images" / "eval")
    assert split.class_names == ("tree",) and len(split.photos) == 4
    assert [photo.boxes.tolist() for photo in split.photos] == [[[100, 50, 140, 90]], [], [], []]
    content = json.loads((folder / "annotations" / "train.json").read_text())
    # Three photos of 3 x 3 tiles, the tree being in two of each.
    assert len(content["images"]) == 27 and len(content["annotations"]) == 6
    assert len(asked) == len(set(asked)) == 8


@pytest.mark.parametrize("side", [63, 401])
def test_sides_that_cannot_be(tmp_path, side):
    with pytest.raises(ValueError, match=f"side is {side}; it must be 64 to 400"):
        trees.TreesOptions(tmp_path, side)

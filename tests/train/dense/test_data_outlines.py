"""Outlines of COCO's objects: polygons and both kinds of RLE, read and refused."""

import chex
import numpy as np
import pytest

from tests.train.dense.conftest import annotation, coco_content, opened, refused
from train.data.dense.coco import bitmaps
from train.data.dense.coco_file import run_lengths

SIZES = [(20, 30), (40, 25)]
ONE = [annotation(1, 10, (2, 3, 10, 8))]


def test_rle_of_both_kinds_and_polygons_of_several_parts(tmp_path):
    from pycocotools import mask as rle

    mask = np.random.default_rng(0).integers(0, 2, (20, 30)).astype(np.uint8)
    columns = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff([0, *changes.tolist(), len(columns)]).tolist()
    counts = [0, *counts] if columns[0] else counts
    coded = rle.encode(np.asfortranarray(mask))["counts"].decode()  # pyright: ignore[reportAttributeAccessIssue]
    outlines = [
        {"size": [20, 30], "counts": counts},
        {"size": [20, 30], "counts": coded},
        [[0, 0, 5, 0, 5, 5, 0, 5], [10, 10, 15, 10, 15, 15, 10, 15]],
    ]
    objects = [
        annotation(i, 10, (0, 0, 30, 20), segmentation=outline)
        for i, outline in enumerate(outlines)
    ]
    got = bitmaps(opened(tmp_path, coco_content(SIZES, objects), masks=True).photos[0])
    chex.assert_trees_all_equal(got[:2], np.array([mask, mask]))
    want = np.zeros((20, 30), np.uint8)
    want[:5, :5] = want[10:15, 10:15] = 1
    chex.assert_trees_all_equal(got[2], want)


BROKEN = {
    "broken polygon, [1, 2, 3, 4]": [[1, 2, 3, 4]],
    "broken polygon, [1, 2, 3, 4, 5, 6, 7]": [[1, 2, 3, 4, 5, 6, 7]],
    "broken polygon, [1, 2, 3, 4, 5, nan]": [[1, 2, 3, 4, 5, float("nan")]],
    "broken polygon, ['a'": [["a", "b", "c", "d", "e", "f"]],
    "broken polygon, [[0, 0], [5, 0]": [[[0, 0], [5, 0], [5, 5]] * 2],
    "broken polygon, [0, 0, [5], 0, 5, 5]": [[0, 0, [5], 0, 5, 5]],
    "broken polygon, [100000, 0, 5": [[100000, 0, 5, 0, 5, 5]],
    "broken polygon, [0, -inf, 5": [[0, float("-inf"), 5, 0, 5, 5]],
    "broken polygon, [1000000": [[10**400, 0, 5, 0, 5, 5]],
    "has no outline": [],
    "RLE of 599 pixels; its image has 600": {"size": [20, 30], "counts": [599]},
    "RLE of the size [30, 20]": {"size": [30, 20], "counts": [600]},
    "outline outside the image, which has 20 x 30": [[31, 0, 40, 0, 40, 9]],
    "RLE of the size [20.0, 30]": {"size": [20.0, 30], "counts": [600]},
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_outlines(tmp_path, message):
    one = ONE[0] | {"segmentation": BROKEN[message]}
    said = refused(tmp_path, coco_content(SIZES, [one]), masks=True)
    assert message in said and "annotation 1 of 0.png" in said


BROKEN_RLE = {
    "no number": ["a"],
    "too high": [2**62] * 4,
    "no counts": None,
    "empty": "",
    "truncated": "jn>4_39J4M2N3",
    "ends within a number": "hb`",
    "of another image": "jn>4_39J4M2N3M",
    "below 0": "hb0O",
    "characters": "h\u00e9",
    "half a character": "h\ud800",
    "too long a number": "P" * 30 + "0",
}


@pytest.mark.parametrize("counts", BROKEN_RLE.values(), ids=BROKEN_RLE)
def test_broken_rle(tmp_path, counts):
    one = ONE[0] | {"segmentation": {"size": [20, 30], "counts": counts}}
    said = refused(tmp_path, coco_content(SIZES, [one]), masks=True)
    assert "annotation 1 of 0.png" in said and "RLE" in said
    assert said.endswith("; its image has 600 pixels.")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_runs_of_compressed_rle(share):
    """As pycocotools packs them, of masks with long, short and no runs."""
    from pycocotools import mask as rle

    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 5), (300, 400)):
        mask = rng.random((height, width)) < share
        mask[:, : width // 2] |= rng.random() < 0.5
        columns = np.concatenate([[False], mask.ravel(order="F")])
        ends = np.append(np.flatnonzero(np.diff(columns)), mask.size)
        text = rle.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()  # pyright: ignore[reportAttributeAccessIssue]
        chex.assert_trees_all_equal(run_lengths(text), np.diff(ends, prepend=0))


OUTLINES = [None, [], [[1, 2]], {"size": [20, 30], "counts": [599]}]


@pytest.mark.parametrize("outline", OUTLINES, ids=str)
@pytest.mark.parametrize("others", [{}, {"iscrowd": 1}, {"area": 0}], ids=str)
def test_outlines_that_are_measured(tmp_path, outline, others):
    """All are, also those of objects that are not learnt."""
    objects = [*ONE, annotation(2, 20, (0, 0, 4, 4), segmentation=outline, **others)]
    content = coco_content([SIZES[1], SIZES[0]], objects)
    said = refused(tmp_path, content, masks=True, learn=False)
    assert "annotation 2 of 1.png" in said
    assert len(opened(tmp_path, content, learn=False).photos) == 2
    if others:
        assert len(opened(tmp_path, content, masks=True).photos[0].outlines) == 1


def test_outlines_are_not_kept_to_measure_on(tmp_path):
    outside = annotation(2, 20, (2, 3, 10, 8), segmentation=[[90, 90, 95, 90, 95, 95]])
    split = opened(tmp_path, coco_content(SIZES, [*ONE, outside]), masks=True, learn=False)
    assert not split.masks and [photo.outlines for photo in split.photos] == [(), ()]


def test_an_outline_is_not_looked_at_where_no_masks_are_wanted(tmp_path):
    split = opened(tmp_path, coco_content(SIZES, [ONE[0] | {"segmentation": [[1]]}]))
    assert split.photos[0].outlines == ()

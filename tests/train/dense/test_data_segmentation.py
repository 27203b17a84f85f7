"""Batches of segmentation: random parts, evaluation at the original size, processes."""

import itertools

import chex
import cv2
import numpy as np
import pytest

from tests.train.dense.conftest import random_image, write_image, write_pairs
from train.data.dense.ade20k import open_pairs
from train.data.dense.segmentation_batches import (
    epoch_order,
    eval_batches,
    eval_pass,
    train_batches,
)

SIZES = [(40, 60), (60, 40), (50, 50), (30, 90), (41, 61)]
NAMES = ("sky", "sea", "sand")
SCALE = (256, 64)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return open_pairs(*write_pairs(tmp_path_factory.mktemp("pairs"), SIZES, 3), NAMES)


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Two images whose colours say what the labels are: 3 squares, and the rest without label."""
    folder = tmp_path_factory.mktemp("ramps")
    for i in range(2):
        labels = np.full((60, 90), 255, np.uint8)
        for k in range(3):
            labels[20 * k : 20 * k + 20, 30 * k : 30 * k + 30] = k
        colour = np.where(labels == 255, 0, 60 * labels + 60).astype(np.uint8)
        write_image(folder / "images" / f"{i}.png", np.repeat(colour[..., None], 3, -1))
        write_image(folder / "labels" / f"{i}.png", labels)
    return open_pairs(folder / "images", folder / "labels", NAMES)


def take(split, count, **options):
    options = {"batch_size": 2, "seed": 0, "scale": SCALE, "crop": (48, 64)} | options
    order = epoch_order(split, options.pop("batch_size"), options.pop("seed"))
    return list(itertools.islice(train_batches(split, order, **options), count))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        chex.assert_trees_all_equal(batch, other)


def test_shapes_dtypes_and_padding(split):
    smaller = 0
    for batch in take(split, 12):
        expected = {
            "image": ((2, 48, 64, 3), np.uint8),
            "img_shape": ((2, 2), np.int32),
            "label": ((2, 48, 64), np.uint8),
            "index": ((2,), np.int64),
            "mask": ((2,), bool),
        }
        assert {key: (a.shape, a.dtype) for key, a in batch.items()} == expected
        for image, label, (h, w) in zip(
            batch["image"], batch["label"], batch["img_shape"], strict=True
        ):
            assert not image[h:].any() and not image[:, w:].any()
            assert (label[h:] == 255).all() and (label[:, w:] == 255).all()
            assert set(np.unique(label[:h, :w])) <= {0, 1, 2}
            smaller += (h, w) != (48, 64)
    assert 0 < smaller < 24


def test_image_and_labels_go_together(ramps):
    """Away from borders the grey level of a class is the same all over, whatever it became."""
    seen = set()
    for batch in take(ramps, 10):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            for k in np.unique(label[label != 255]):
                inside = cv2.erode((label == k).astype(np.uint8), np.ones((7, 7)), borderValue=0)
                levels = image[inside.astype(bool)]
                assert len(levels) == 0 or (levels == levels[0]).all()
                seen.add(tuple(levels[0].tolist()) if len(levels) else None)
    assert len(seen) > 10  # Distorted, each in its own way.


def test_half_are_flipped(ramps):
    """The class of the leftmost labelled pixels is 0, or 2 when flipped."""
    flips = []
    for batch in take(ramps, 40, scale=(90, 60), crop=(200, 400)):
        for label, (h, w) in zip(batch["label"], batch["img_shape"], strict=True):
            assert h * 3 == pytest.approx(w * 2, abs=3)  # The whole image, in its ratio.
            columns = np.nonzero((label != 255).any(0))[0]
            column = label[:, columns[0]]
            flips.append(column[column != 255][0] == 2)
    assert 25 <= sum(flips) <= 55


def test_resuming_and_processes_change_nothing(split):
    whole = take(split, 6)
    assert_same(take(split, 4, first=2), whole[2:])
    halves = [take(split, 6, process=(number, 2)) for number in range(2)]
    joined = [
        {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)
    # Each of the two epochs has each image, one of them twice to fill the last batch.
    indices = np.concatenate([batch["index"] for batch in whole])
    assert set(indices[:6]) == set(range(5)) == set(indices[6:])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_evaluation(split, batch_size):
    plan = eval_pass(split, batch_size=batch_size, scale=SCALE)
    # 40 x 60, 60 x 40, 50 x 50, 30 x 90 and 41 x 61, with the shorter side at 64.
    assert plan.shapes == ((64, 64), (64, 96), (64, 192), (96, 64))
    seen = []
    for batch in eval_batches(split, plan, scale=SCALE):
        chex.assert_trees_all_equal(batch["mask"], batch["index"] >= 0)
        assert (batch["label"][~batch["mask"]] == 255).all()
        largest = batch["original_shape"].max(0)
        chex.assert_shape(batch["label"], (None, *largest))
        for i in np.flatnonzero(batch["mask"]):
            number = int(batch["index"][i])
            h, w = SIZES[number]
            labels = split.read(number)[1]
            chex.assert_trees_all_equal(batch["label"][i, :h, :w], labels)
            assert (batch["label"][i, h:] == 255).all() and (batch["label"][i, :, w:] == 255).all()
            first = {0: (64, 96), 1: (96, 64), 2: (64, 64), 3: (64, 192), 4: (64, 95)}[number]
            image = cv2.resize(random_image(number, h, w), first[::-1])
            shape = batch["image"].shape[1:3]
            image = cv2.resize(image, shape[::-1])
            chex.assert_trees_all_equal(batch["image"][i], image)
            assert tuple(batch["img_shape"][i]) == shape
            seen.append(number)
    assert sorted(seen) == list(range(5))


def test_evaluation_on_two_processes(split):
    plan = eval_pass(split, batch_size=2, scale=SCALE)
    whole = list(eval_batches(split, plan, scale=SCALE))
    halves = [list(eval_batches(split, plan, scale=SCALE, process=(n, 2))) for n in range(2)]
    joined = [
        {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)

"""Composites: what is pasted is what masks, boxes and labels say, and both tasks can read it."""

import chex
import cv2
import numpy as np
import pytest

from train.data.composites import __main__ as command
from train.data.composites.draw import SIDE, composite, part_of
from train.data.dense import coco_writer
from train.data.dense.ade20k import open_pairs
from train.data.dense.coco import bitmaps, open_coco
from train.data.fetching.fetch import DataError

BLACK = np.zeros((SIDE, SIDE, 3), np.uint8)
TINTS = 40 + 40 * np.arange(5)
SEEDS = range(8)
CLASSES = len(command.CLASS_NAMES)


def plain_photos(count):
    """Photos of one colour each, classes 5, 6, ...: what is seen in a composite tells which."""
    return [(np.full((32, 32, 3), tint, np.uint8), 5 + i) for i, tint in enumerate(TINTS[:count])]


class Photos:
    """A split of CIFAR-10 whose photos tell their class: 20 times it, plus one."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        label = index % CLASSES
        return {"image": np.full((32, 32, 3), 20 * label + 1, np.uint8), "label": label}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that makes a data set of the photos above, on grey noise; gives its folder."""

    class Builder:
        def as_data_source(self):
            return {"train": Photos(), "test": Photos()}

    def backgrounds(split, downloads):
        return [np.random.default_rng(0).integers(206, 256, (150, 170, 3), np.uint8)]

    monkeypatch.setattr(command.cifar10, "prepare", lambda data_dir: Builder())
    monkeypatch.setattr(command, "backgrounds", backgrounds)

    def make(name, train=4, seed=0):
        path = tmp_path / name
        command.make(command.CompositesOptions(path, train=train, test=2, seed=seed))
        return path

    return make


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_are_what_is_seen(seed):
    image, objects = composite(plain_photos(5), BLACK, np.random.default_rng(seed))
    assert 1 <= len(objects) <= 5
    labels = [pasted.label for pasted in objects]
    assert labels == sorted(set(labels))
    seen = np.zeros((SIDE, SIDE), bool)
    for label, mask in objects:
        chex.assert_trees_all_equal(mask, (image == TINTS[label - 5]).all(axis=-1))
        seen |= mask
    assert (image[~seen] == 0).all()


def test_enough_is_seen_in_many_shapes():
    """Of each object at least 40 %, against what it has where it is alone."""
    shares, filled = [], []
    for seed in range(40):
        _, objects = composite(plain_photos(4), BLACK, np.random.default_rng(seed))
        _, alone = composite(plain_photos(1), BLACK, np.random.default_rng(seed))
        if objects[0].label == alone[0].label:
            shares.append(objects[0].mask.sum() / alone[0].mask.sum())
        x, y, w, h = cv2.boundingRect(alone[0].mask.astype(np.uint8))
        assert 0 <= x <= x + w <= SIDE and 0 <= y <= y + h <= SIDE and max(w, h) <= 96
        filled.append(alone[0].mask.sum() / (w * h))
    assert min(shares) >= 0.4 and min(shares) < 0.95
    assert max(filled) < 0.97 and min(filled) < 0.75  # No shape is a box.


def test_part_of_a_photo():
    photo = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    parts = [part_of(photo, np.random.default_rng(seed)) for seed in range(6)]
    mirrored = [(part == photo[:, ::-1]).all() for part in parts]
    assert {True, False} == set(mirrored)
    assert all(m or (part == photo).all() for m, part in zip(mirrored, parts, strict=True))


def test_both_tasks_read_it(made):
    folder = made("data")
    names = (*command.CLASS_NAMES, "background")
    for split, count in (("train", 4), ("test", 2)):
        coco = open_coco(
            folder / "annotations" / f"{split}.json", folder / "images" / split, masks=True
        )
        pairs = open_pairs(folder / "images" / split, folder / "labels" / split, names)
        assert coco.class_names == command.CLASS_NAMES
        assert len(coco.photos) == len(pairs.pairs) == count
        for number, photo in enumerate(coco.photos):
            image, classes = pairs.read(number)
            assert image.shape == (SIDE, SIDE, 3)
            left = classes.copy()
            for mask, box, label in zip(bitmaps(photo), photo.boxes, photo.labels, strict=True):
                x, y, w, h = cv2.boundingRect(mask)
                assert box.tolist() == [x, y, x + w, y + h]
                assert (classes[mask > 0] == label).all()
                # JPEG blurs its border alone.
                assert abs(np.median(image[mask > 0]) - (20 * label + 1)) <= 1
                left[mask > 0] = CLASSES
            assert (left == CLASSES).all()


def test_same_seed_same_files(made):
    def content(folder):
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in files}

    first, again, longer, other = (
        content(made(name, **options))
        for name, options in (("a", {}), ("b", {}), ("c", {"train": 5}), ("d", {"seed": 1}))
    )
    assert len(first) == 14 and first == again
    images = [path for path in first if path.parent.parent.name in ("images", "labels")]
    assert all(first[path] == longer[path] for path in images)
    assert all(first[path] != other[path] for path in images)


def test_splits_share_no_background():
    train, test = (
        {name for _, names in command.BACKGROUNDS[split] for name in names}
        for split in ("train", "test")
    )
    assert not train & test and len(train) == 10 and len(test) == 2


def test_nothing_half_made(made, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(coco_writer.cv2, "imencode", full)
    with pytest.raises(DataError, match="is full"):
        made("data")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_bad_options(made, tmp_path):
    for options, said in (({"train": 0}, "train is 0"), ({"seed": -1}, "seed is -1")):
        with pytest.raises(ValueError, match=said):
            made("data", **options)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("")
    with pytest.raises(DataError, match=r"something at .*data already"):
        made("data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine.txt"]

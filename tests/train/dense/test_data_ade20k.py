"""Folders of images and label images: what is read, what is refused."""

import os
import unicodedata

import chex
import numpy as np
import pytest
from PIL import Image

from ssmjax.class_names import ADE20K
from tests.train.dense.conftest import random_image, write_image, write_pairs
from train.data.dense import label_images
from train.data.dense.ade20k import open_ade20k, open_pairs
from train.data.fetching.fetch import DataError

SIZES = [(20, 30), (40, 25)]
NAMES = ("sky", "sea", "sand")


@pytest.fixture
def ade(tmp_path):
    """Two validation photos, of which the first has the labels 0 to 150 and 255."""
    for i, (h, w) in enumerate(SIZES):
        name = f"validation/ADE_val_{i}"
        write_image(tmp_path / "images" / f"{name}.jpg", random_image(i, h, w))
        labels = (np.arange(h * w) % 151).reshape(h, w).astype(np.uint8)
        labels[-1, -1] = 255
        write_image(tmp_path / "annotations" / f"{name}.png", labels)
    return tmp_path


def refused(action, *arguments, **options):
    with pytest.raises(DataError) as error:
        action(*arguments, **options)
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message
    return message


def test_ade20k(ade):
    split = open_ade20k(ade, "validation")
    assert len(split.pairs) == 2 and len(split.class_names) == 150
    assert split.class_names[0] == "wall" and split.class_names[-1] == "flag"
    image, labels = split.read(0)
    assert image.shape == (20, 30, 3) and image.dtype == labels.dtype == np.uint8
    want = np.arange(600) % 151 - 1
    want[want < 0] = 255
    want[-1] = 255
    chex.assert_trees_all_equal(labels.ravel(), want)


def test_pairs_keep_zero(tmp_path):
    split = open_pairs(*write_pairs(tmp_path, SIZES, 3), NAMES)
    with Image.open(tmp_path / "labels" / "1.png") as image:
        want = np.asarray(image)
    image, labels = split.read(1)
    chex.assert_trees_all_equal(labels, want)
    chex.assert_trees_all_equal(image, random_image(1, *SIZES[1]))
    assert set(np.unique(labels)) == {0, 1, 2}


def test_palette_images_give_their_indices(tmp_path):
    images, labels = write_pairs(tmp_path, SIZES, 3)
    image = Image.fromarray(np.full((20, 30), 2, np.uint8))
    image.putpalette([9, 9, 9, 7, 7, 7, 200, 100, 50])
    image.save(labels / "0.png")
    assert (open_pairs(images, labels, NAMES).read(0)[1] == 2).all()


def test_labels_out_of_range(ade, tmp_path):
    write_image(ade / "annotations/validation/ADE_val_0.png", np.full((20, 30), 151, np.uint8))
    said = refused(open_ade20k(ade, "validation").read, 0)
    assert "ADE_val_0.png has the value 151; the 150 classes are 1 to 150, or 0 or 255" in said
    pairs = open_pairs(*write_pairs(tmp_path / "pairs", SIZES, 4), NAMES)
    assert "has the value 3; the 3 classes are 0 to 2 or 255" in refused(pairs.read, 0)
    # One more than that of no class.
    deep = Image.fromarray(np.full((20, 30), 256, np.uint16))
    for split, path in (
        (open_ade20k(ade, "validation"), ade / "annotations/validation/ADE_val_0.png"),
        (pairs, tmp_path / "pairs/labels/0.png"),
    ):
        deep.save(path)
        assert "has the value 256; the " in refused(split.read, 0)


def test_files_that_lack(ade):
    label = ade / "annotations/validation/ADE_val_1.png"
    content = label.read_bytes()
    label.unlink()
    said = refused(open_ade20k, ade, "validation")
    assert "1 of 2 files have no label image" in said and "ADE_val_1.jpg" in said
    label.write_bytes(content)
    split = open_ade20k(ade, "validation")
    (ade / "images/validation/ADE_val_1.jpg").unlink()
    said = refused(open_ade20k, ade, "validation")
    assert "1 of 2 files have no image" in said and "ADE_val_1.png" in said
    assert "ADE_val_1.jpg cannot be read: No such file" in refused(split.read, 1)
    assert "There is no folder" in refused(open_ade20k, ade, "training")


def test_two_images_of_a_name(tmp_path):
    folders = write_pairs(tmp_path, SIZES, 3)
    write_image(tmp_path / "images/0.jpg", random_image(0, 20, 30))
    said = refused(open_pairs, *folders, NAMES)
    assert f"The folder {folders[0]} has 0.jpg and 0.png; give each a name of its own." == said


def test_empty_folder(tmp_path):
    write_pairs(tmp_path, SIZES, 3)
    (tmp_path / "none").mkdir()
    assert "has no files of .png" in refused(
        open_pairs, tmp_path / "images", tmp_path / "none", NAMES
    )


def test_damaged_files(tmp_path):
    split = open_pairs(*write_pairs(tmp_path, SIZES, 3), NAMES)
    image_path, label_path = split.pairs[0]
    label = label_path.read_bytes()
    label_path.write_bytes(label[:60])
    assert "The label image" in refused(split.read, 0)
    write_image(label_path, random_image(0, 20, 30))
    assert "has 3 channels; it must have one" in refused(split.read, 0)
    write_image(label_path, np.zeros((20, 31), np.uint8))
    assert "has 20 x 31 pixels, its image 20 x 30" in refused(split.read, 0)
    image_path.write_bytes(b"no image")
    assert "is not a readable JPEG or PNG" in refused(split.read, 0)


def test_classes_of_the_weights(ade, tmp_path):
    open_ade20k(ade, "validation", ADE20K)
    said = refused(open_ade20k, ade, "validation", ("wall", "house", *ADE20K[2:]))
    assert 'ADE20K validation calls class 1 "building", the weights "house"' in said
    folders = write_pairs(tmp_path / "pairs", SIZES, 3)
    said = refused(open_pairs, *folders, NAMES, classes=("sky",))
    assert "has 3 classes (sky, sea, sand), the weights know 1 (sky)" in said
    assert "has 256 classes; there can be 1 to 255" in refused(open_pairs, *folders, ["x"] * 256)


def binary(folder, *masks):
    """Images and label images of 8 x 8 pixels."""
    for number, mask in enumerate(masks):
        write_image(folder / "images" / f"{number}.png", random_image(number, 8, 8))
        write_image(folder / "labels" / f"{number}.png", mask)
    return folder / "images", folder / "labels"


def mask(value, other=0):
    labels = np.full((8, 8), other, np.uint8)
    labels[2:6, 2:6] = value
    return labels


def test_masks_of_0_and_255_are_refused(tmp_path):
    folders = binary(tmp_path, mask(255), mask(255))
    said = refused(open_pairs, *folders, ("background", "object"))
    assert said == (
        f"{folders[0]}: its 2 label images have pixels of background alone and none of object, so "
        "there is nothing to learn or to measure; 32 pixels (25.0%) are 255 and do not count. If "
        "255 means object, it must be written as 1."
    )
    said = refused(open_pairs, *folders, ("background", "car", "tree"))
    assert "If 255 means one of them, such as car, it must be written as 1." in said
    assert "have no pixels of a, b, so there is nothing to learn" in refused(
        open_pairs, *binary(tmp_path / "all", mask(255, 255)), ("a", "b")
    )
    assert open_pairs(*binary(tmp_path / "one", mask(0)), ("all",)).remarks == ()


def test_ade20k_of_one_class_is_refused(tmp_path):
    write_image(tmp_path / "images/training/a.jpg", random_image(0, 8, 8))
    write_image(tmp_path / "annotations/training/a.png", mask(2))
    said = refused(open_ade20k, tmp_path, "training")
    assert "have pixels of building alone and none of wall, sky, " in said
    assert said.endswith("48 pixels (75.0%) are 0 or 255 and do not count.")


def test_classes_that_never_occur_are_told(tmp_path):
    folders = binary(tmp_path, mask(1), mask(255, 1))
    assert open_pairs(*folders, ("a", "b", "c")).remarks == (
        f"{folders[0]}: 1 of 3 classes have no pixel: c; 16 pixels (12.5%) are 255 and do not "
        "count. If 255 means c, it must be written as 2.",
    )
    assert open_pairs(*folders, ("a", "b")).remarks == (
        f"{folders[0]}: 16 pixels (12.5%) are 255 and do not count.",
    )
    assert open_pairs(*binary(tmp_path / "full", mask(1)), ("a", "b")).remarks == ()


def test_label_images_are_counted_once_until_they_change(tmp_path, monkeypatch):
    folders, read = binary(tmp_path, mask(1)), []
    plain = label_images.read_labels
    monkeypatch.setattr(label_images, "read_labels", lambda p: (read.append(p), plain(p))[1])
    for _ in range(2):
        open_pairs(*folders, ("a", "b"))
    assert len(read) == 1
    write_image(folders[1] / "0.png", mask(1, 255))
    said = refused(open_pairs, *folders, ("a", "b"))
    assert "have pixels of b alone and none of a" in said and len(read) == 2


def test_broken_label_images_are_told_before_they_stop_the_run(tmp_path):
    folders = binary(tmp_path, mask(1), mask(3))
    split = open_pairs(*folders, ("a", "b"))
    assert split.remarks == (
        f"{folders[0]}: 1 label images stop the run when they are met. The label image "
        f"{folders[1] / '1.png'} has the value 3; the 2 classes are 0 to 1 or 255 where there is "
        "none.",
    )


def test_what_is_left_out(tmp_path):
    images, labels = binary(tmp_path, mask(1), mask(1))
    for folder in (images, labels):
        (folder / "._0.png").write_bytes(b"of macOS")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / "0.png").write_bytes((folder / "0.png").read_bytes())
    (images / "0.heic").touch()
    (images / "1.png").rename(images / "1.PNG")
    split = open_pairs(images, labels, ("a", "b"))
    assert [image.name for image, _ in split.pairs] == ["0.png", "1.PNG"]
    assert split.remarks == (
        f"{images}: left out 1 .heic, 1 hidden file, 1 hidden folder in {images}.",
        f"{images}: left out 1 hidden file, 1 hidden folder in {labels}.",
    )
    (labels / "1.png").rename(labels / "1.jpg")
    said = refused(open_pairs, images, labels, ("a", "b"))
    assert "such as 1.PNG; unpack the data set again (left out there: 1 .jpg, " in said


def test_deep_folders_and_accents(tmp_path):
    for place, form in (("images", "NFC"), ("labels", "NFD")):
        name = unicodedata.normalize(form, "crème/é.png")
        image = mask(1) if place == "labels" else random_image(0, 8, 8)
        write_image(tmp_path / place / name, image)
        write_image(tmp_path / place / "b/é.png", image)
    split = open_pairs(tmp_path / "images", tmp_path / "labels", ("a", "b"))
    assert len(split.pairs) == 2
    chex.assert_trees_all_equal(split.read(1)[1], mask(1))


def test_names_that_are_not_utf8(tmp_path):
    images, labels = binary(tmp_path, mask(1))
    (labels / "0.png").rename(labels / os.fsdecode(b"caf\xe9.png"))
    said = refused(open_pairs, images, labels, ("a", "b"))
    assert said.startswith(f"The name of {labels}/caf\\xe9.png is not UTF-8; rename it")

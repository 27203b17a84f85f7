"""Images that their EXIF orientation turns: against their annotations, no silent mistakes."""

import chex
import numpy as np
import pytest
from PIL import Image

from tests.image_files import saved, turned
from tests.train.dense.conftest import annotation, coco_content, sentence, write_coco, write_pairs
from train.data.dense.ade20k import open_pairs
from train.data.dense.coco import open_coco
from train.data.dense.detection_batches import epoch_order, eval_batches, eval_pass, train_batches
from train.data.dense.turned import LOOKED_AT, remarks
from train.data.fetching.fetch import DataError

STORED = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
SMALL = {"scale": (64, 64)}


def photo(orientation, kind="PNG", **options):
    return saved(Image.fromarray(STORED), kind, orientation, **options)


@pytest.fixture
def detection(tmp_path):
    """What opens a split of one photo of an orientation, whose annotations are of a size."""

    def open_split(orientation, size):
        content = coco_content([size], [annotation(1, 10, (4, 5, 6, 7))])
        annotations, images = write_coco(tmp_path, content)
        (images / "0.png").write_bytes(photo(orientation))
        return open_coco(annotations, images)

    return open_split


def first_batches(split):
    order = epoch_order(split, batch_size=1, seed=0)
    train = train_batches(split, order, flip=0, shapes=((64, 64),), **SMALL)
    plan = eval_pass(split, batch_size=1, shapes=((64, 64),), **SMALL)
    return next(train), next(eval_batches(split, plan, **SMALL))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_picture_before_the_turn(detection, orientation):
    split = detection(orientation, (32, 64))
    with pytest.raises(DataError) as error:
        first_batches(split)
    said = sentence(error)
    assert f"0.png has the EXIF orientation {orientation}, which turns it to 64 x 32 pixels" in said
    assert "its annotations are for 32 x 64, the picture before the turn: turn them too" in said


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_upright_picture(detection, orientation):
    size = (32, 64) if orientation < 5 else (64, 32)
    split = detection(orientation, size)
    told = [remark for remark in split.remarks if "EXIF" in remark]
    assert len(told) == (orientation in (2, 3, 4))
    for batch in first_batches(split):
        shown = batch["image"][0, : size[0], : size[1]]
        chex.assert_trees_all_equal(shown, turned(STORED, orientation))


def test_another_size_is_another_matter(detection):
    with pytest.raises(DataError, match="has 64 x 32 pixels, its annotations say 9 x 9; one of"):
        first_batches(detection(6, (9, 9)))
    with pytest.raises(DataError, match="has 32 x 64 pixels, its annotations say 64 x 32; one of"):
        first_batches(detection(3, (64, 32)))


def test_label_images_of_the_picture_before_the_turn(tmp_path):
    images, labels = write_pairs(tmp_path, [(32, 64)], 3)
    (images / "0.png").write_bytes(photo(6))
    with pytest.raises(DataError) as error:
        open_pairs(images, labels, ("ant", "bee", "cup")).read(0)
    assert "0.png has the EXIF orientation 6, which turns it to 64 x 32 pixels" in sentence(error)


def test_what_the_size_cannot_tell_is_said(tmp_path):
    square = saved(Image.fromarray(STORED[:, :32]), "JPEG", 6)
    files = [
        *(photo(orientation) for orientation in range(1, 9)),
        *(photo(3, kind) for kind in ("JPEG", "WEBP", "TIFF")),
        *(square, photo(1, "JPEG"), b"no image"),
    ]
    paths = [tmp_path / f"{number:02}" for number in range(len(files))]
    for path, encoded in zip(paths, files, strict=True):
        path.write_bytes(encoded)
    (said,) = remarks(paths, "cups", "boxes")
    assert said.startswith("cups: 7 of 14 images looked at are mirrored or turned by their EXIF")
    assert f"such as {paths[1]}, and their size cannot tell whether their boxes are too" in said
    assert not list(remarks(paths[:1], "cups", "boxes")) and not list(remarks([], "cups", "boxes"))
    (said,) = remarks(paths[1:2] * (2 * LOOKED_AT + 1), "cups", "boxes")
    assert "667 of 667 images looked at" in said

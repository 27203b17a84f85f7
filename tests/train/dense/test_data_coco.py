"""Annotations of COCO: what is read, what is left out, what is refused."""

import json
import sys
import unicodedata

import chex
import numpy as np
import pytest

from tests.train.dense.conftest import (
    annotation,
    coco_content,
    opened,
    refused,
    sentence,
    write_coco,
)
from train.data.dense.coco import bitmaps, open_coco
from train.data.dense.coco_file import read_annotations
from train.data.fetching.fetch import DataError

SIZES = [(20, 30), (40, 25)]
ONE = [annotation(1, 10, (2, 3, 10, 8))]


def test_boxes_labels_and_masks(tmp_path):
    objects = [
        annotation(1, 20, (2, 3, 10, 8)),
        annotation(2, 20, (0.5, 30.25, 24, 9), category_id=3),
        annotation(3, 10, (4, 5, 6, 7)),
    ]
    split = opened(tmp_path, coco_content(SIZES, objects), masks=True)
    assert (split.class_names, split.category_ids) == (("ant", "cup"), (3, 7))
    first, second = split.photos
    assert (first.image_id, first.height, first.width) == (10, 20, 30)
    want = np.array([[2, 3, 12, 11], [0.5, 30.25, 24.5, 39.25]])
    chex.assert_trees_all_equal(second.boxes, want)
    assert second.boxes.dtype == np.float32 and second.labels.tolist() == [1, 0]
    want = np.zeros((20, 30), np.uint8)
    want[5:12, 4:10] = 1
    chex.assert_trees_all_equal(bitmaps(first), want[None])
    assert bitmaps(second).shape == (2, 40, 25)


def test_what_is_left_out(tmp_path):
    objects = [
        annotation(1, 10, (0, 0, 4, 4), iscrowd=1, segmentation=None),
        annotation(2, 10, (0, 0, 4, 4), area=0),
        annotation(3, 10, (0, 0, 0.9, 4)),
        annotation(4, 10, (0, 0, 4, 0.9)),
        annotation(5, 10, (30, 0, 4, 4)),
        annotation(6, 10, (0, -5, 4, 5)),
        annotation(7, 10, (0, 0, 4, 4), ignore=1),
        annotation(8, 10, (-3, -3, 4, 4)),
        annotation(9, 10, (29, 19, 1, 1)),
    ]
    split = opened(tmp_path, coco_content(SIZES, objects), masks=True)
    chex.assert_trees_all_equal(split.photos[0].boxes, np.array([[-3, -3, 1, 1], [29, 19, 30, 20]]))
    assert split.remarks == (
        "instances.json: 1 of 2 images have no objects; they teach background.",
        "instances.json: 7 objects are left out: 2 below a pixel, 1 crowds, 1 marked to be "
        "ignored, 2 outside their image, 1 without area.",
        "instances.json: 1 of 2 categories have no object to learn: ant.",
    )
    split = opened(tmp_path, coco_content(SIZES, objects), learn=False)
    assert "images have no objects; what is found on them is wrong." in split.remarks[0]
    assert "7 objects are measured as COCO does: 2 below a pixel, 1 crowds, " in split.remarks[1]


def test_images_without_annotations_may_be_left_out(tmp_path):
    objects = [*ONE, annotation(2, 20, (0, 0, 4, 4), iscrowd=1)]
    content = coco_content([*SIZES, (8, 9)], objects)
    assert [len(photo.labels) for photo in opened(tmp_path, content).photos] == [1, 0, 0]
    split = opened(tmp_path, content, keep_empty=False)
    # A crowd is an annotation, though none to learn.
    assert [photo.image_id for photo in split.photos] == [10, 20]
    assert "1 of 3 images have no objects; they are left out." in split.remarks[0]


def test_official_annotations(official, tmp_path):
    content = official["gt"]
    split = opened(tmp_path, content, masks=True)
    crowds = sum(a["iscrowd"] for a in content["annotations"])
    assert sum(len(p.labels) for p in split.photos) == len(content["annotations"]) - crowds
    kept = (a for a in content["annotations"] if not a["iscrowd"])
    areas = {p.image_id: bitmaps(p).sum((1, 2)).tolist() for p in split.photos}
    for one in kept:  # Areas in the file are those of the masks, rounded down.
        assert abs(areas[one["image_id"]].pop(0) - one["area"]) <= 1


def test_crowds_are_marked_by_0_or_1(tmp_path):
    objects = [annotation(i, 10, (0, 0, 4, 4)) for i in range(6)]
    for one, crowd in zip(objects[1:], (None, 0, 1, False, True), strict=True):
        one["iscrowd"] = crowd
    del objects[0]["iscrowd"]
    paths = write_coco(tmp_path, coco_content(SIZES, objects))
    read = read_annotations(paths[0])["annotations"]
    assert [one["iscrowd"] for one in read] == [0, 0, 0, 1, 0, 1]
    assert len(open_coco(*paths).photos[0].labels) == 4


def test_no_object_at_all(tmp_path):
    assert "no object to learn in any of its 2 images" in refused(tmp_path, coco_content(SIZES, []))


def test_annotation_of_an_unknown_image_or_category(tmp_path):
    content = coco_content(SIZES, [*ONE, annotation(5, 99, (0, 0, 4, 4))])
    assert "id 5, of the image 99, which" in refused(tmp_path, content)
    said = refused(tmp_path, coco_content(SIZES, [ONE[0] | {"category_id": 4}]))
    assert "annotation 1 of 0.png, has the category 4, which" in said


def test_two_with_an_id(tmp_path):
    content = coco_content(SIZES, ONE)
    content["images"][1]["id"] = 10
    assert "images with the same id" in refused(tmp_path, content)
    content = coco_content(SIZES, ONE)
    content["categories"][1]["id"] = 7
    assert "categories with the same id" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("annotations", {"bbox": [1, 2, 3]}, '"bbox" [1, 2, 3]; it must be four numbers'),
        ("annotations", {"bbox": [1, 2, None, 4]}, "must be four numbers, x, y, w, h"),
        ("annotations", {"bbox": None}, 'the "bbox" null'),
        ("annotations", {"bbox": [1, 2, 10**400, 4]}, "must be four numbers, x, y, w, h"),
        ("annotations", {"area": None}, 'the "area" null; it must be a number'),
        ("annotations", {"area": float("nan")}, 'the "area" NaN; it must be a number'),
        ("annotations", {"id": 2**63}, "it must be a whole number of 64 bits"),
        ("annotations", {"iscrowd": 2}, 'the "iscrowd" 2; it must be 0 or 1'),
        ("annotations", {"iscrowd": []}, 'the "iscrowd" []; it must be 0 or 1'),
        ("annotations", {"image_id": [1]}, 'the "image_id" [1]; it must be a whole number'),
        ("images", {"height": 0}, 'the "height" 0; it must be a whole number above 0'),
        ("images", {"id": "12"}, 'the "id" "12"; it must be a whole number'),
        ("annotations", {"category_id": "7"}, 'the "category_id" "7"; it must be a whole number'),
        ("annotations", {"id": True}, 'the "id" true; it must be a whole number'),
        ("annotations", {"image_id": ["a"]}, 'the "image_id" ["a"]; it must be a whole number'),
        ("annotations", {"area": "80"}, 'the "area" "80"; it must be a number'),
    ],
)
def test_fields_of_another_kind(tmp_path, part, change, message):
    content = coco_content(SIZES, list(ONE))
    paths = write_coco(tmp_path, content)
    content[part][0] = content[part][0] | change
    paths[0].write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        open_coco(*paths)
    assert f'entry 0 of "{part}" has the ' in sentence(error)
    assert message in sentence(error)


def test_missing_files(tmp_path):
    annotations, images = write_coco(tmp_path, coco_content(SIZES, ONE))
    (images / "1.png").unlink()
    with pytest.raises(DataError, match="lacks 1 of its 2 files, such as .*1.png") as error:
        open_coco(annotations, images)
    sentence(error)
    with pytest.raises(DataError, match="lacks 2 of its 2 files"):
        open_coco(annotations, tmp_path / "elsewhere")
    with pytest.raises(DataError, match="none.json cannot be read: No such file") as error:
        open_coco(tmp_path / "none.json", images)
    sentence(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "are not JSON"),
        ("[]", 'no list "categories"'),
        ('{"categories": [{"id": 1}]}', 'entry 0 of "categories" has no "name"'),
        ('{"categories": [3]}', 'entry 0 of "categories" is 3; it must be an object'),
        ('{"categories": [{"id": 1, "name": 2}]}', 'has the "name" 2; it must be a text'),
    ],
)
def test_not_an_annotation_file(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        open_coco(path, tmp_path)
    sentence(error)


def test_classes_of_the_weights(tmp_path):
    content = coco_content(SIZES, ONE)
    assert opened(tmp_path, content, classes=("ant", "cup")).class_names == ("ant", "cup")
    said = refused(tmp_path, content, classes=("ant", "mug"))
    assert 'instances.json calls class 1 "cup", the weights "mug"' in said
    said = refused(tmp_path, content, classes=("x",) * 80)
    assert "has 2 classes (ant, cup), the weights know 80 (x, x, x" in said


def test_areas_that_are_not_told_are_those_of_the_boxes(tmp_path):
    objects = [annotation(1, 10, (2, 3, 10, 8)), annotation(2, 20, (1, 1, 5, 4))]
    del objects[0]["area"]
    for learn in (True, False):
        split = opened(tmp_path, coco_content(SIZES, objects), learn=learn)
        assert [len(photo.labels) for photo in split.photos] == [1, 1]
        said = "instances.json: 1 objects do not tell their area; that of their box is taken."
        assert said in split.remarks
    content = read_annotations(tmp_path / "instances.json")
    assert [one["area"] for one in content["annotations"]] == [80, 20]


def test_objects_without_area_are_measured_but_not_learnt(tmp_path):
    """As mmdetection's loader and pycocotools do."""
    content = coco_content(SIZES, [ONE[0] | {"area": 0}])
    said = refused(tmp_path, content)
    assert "no object to learn in any of its 2 images; left out are 1 without area: where" in said
    assert (
        "1 of 2 categories have no object to measure"
        in opened(tmp_path, content, learn=False).remarks[-1]
    )
    content = coco_content(SIZES, [ONE[0] | {"iscrowd": 1}])
    said = refused(tmp_path, content, learn=False)
    assert "no object to measure in any of its 2 images; left out are 1 crowds." in said


def test_measured_categories_are_known_by_name(tmp_path):
    """In another order, under other ids, and fewer than those that were learnt."""
    content = coco_content(SIZES, [ONE[0], annotation(2, 20, (1, 1, 5, 4), category_id=3)])
    known = ("cup", "dog", "ant")
    split = opened(tmp_path, content, learn=False, classes=known)
    assert split.class_names == known and split.category_ids == (7, None, 3)
    assert [photo.labels.tolist() for photo in split.photos] == [[0], [2]]
    said = "instances.json lacks 1 of the 3 categories, which are not measured: dog."
    assert said in split.remarks
    said = refused(tmp_path, content, learn=False, classes=("cup", "dog"))
    assert "instances.json has the classes ant, which are not among the 2 of" in said
    content["categories"][1]["name"] = "cup"
    said = refused(tmp_path, content, learn=False, classes=known)
    assert "has several classes of one name: cup; rename them." in said


def test_accents_of_file_names(tmp_path):
    content = coco_content(SIZES, ONE)
    content["images"][0]["file_name"] = unicodedata.normalize("NFD", "é.png")
    annotations, images = write_coco(tmp_path, content)
    content["images"][0]["file_name"] = unicodedata.normalize("NFC", "é.png")
    annotations.write_text(json.dumps(content))
    assert open_coco(annotations, images).photos[0].path.is_file()


def test_without_pycocotools(tmp_path, monkeypatch):
    content = coco_content(SIZES, ONE)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    assert len(opened(tmp_path, content).photos) == 2
    for options in ({"masks": True}, {"learn": False}):
        assert "pip install pycocotools" in refused(tmp_path, content, **options)

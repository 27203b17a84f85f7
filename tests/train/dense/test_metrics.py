"""COCO's twelve numbers and mean IoU, on one process and on two."""

import functools
import json
import os
import socket
import subprocess
import sys

import chex
import numpy as np
import pytest

from tests.train.conftest import ROOT
from train.data.fetching.fetch import DataError
from train.metrics import coco, miou


@pytest.fixture
def truth(official, tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(official["gt"]))
    return path


def by_image(official):
    return {
        image["id"]: [d for d in official["detections"] if d["image_id"] == image["id"]]
        for image in official["gt"]["images"]
    }


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("backend", ["pycocotools", "faster-coco-eval"])
def test_twelve_numbers(official, truth, kind, backend):
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    got = coco.evaluate(truth, by_image(official), [kind], backend)[0]
    assert tuple(got) == coco.NAMES and list(got.values()) == official["stats"][kind]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_ids_of_annotations_and_missing_marks_change_nothing(official, truth, kind):
    """Also an id of 0, and many times the same; pycocotools would count less."""
    gt = json.loads(truth.read_text())
    for one in gt["annotations"]:
        one["id"] = 0
        if not one["iscrowd"]:
            del one["iscrowd"]
    truth.write_text(json.dumps(gt))
    got = coco.evaluate(truth, by_image(official), [kind])[0]
    assert list(got.values()) == official["stats"][kind]


def test_from_arrays(official, truth):
    """Detections made of corners, scores, labels and masks."""
    from pycocotools import mask as rle

    ids = sorted(category["id"] for category in official["gt"]["categories"])
    results = {}
    for image, found in by_image(official).items():
        size = next(i for i in official["gt"]["images"] if i["id"] == image)
        boxes = np.array([d["bbox"] for d in found]).reshape(-1, 4)
        masks = [rle.decode(d["segmentation"]) for d in found]
        results[image] = coco.detections(
            image,
            np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            np.array([d["score"] for d in found]),
            np.array([ids.index(d["category_id"]) for d in found], int),
            ids,
            np.array(masks, bool).reshape(-1, size["height"], size["width"]),
        )
    for kind in ("bbox", "segm"):
        got = list(coco.evaluate(truth, results, [kind])[0].values())
        chex.assert_trees_all_close(got, official["stats"][kind], rtol=0, atol=1e-12)
    json.dumps(results)


def test_nothing_found(official, truth):
    results = {image: [] for image in by_image(official)}
    assert set(coco.evaluate(truth, results, ["bbox"])[0].values()) == {0.0}


def test_merging_does_not_depend_on_who_had_which_image(official):
    results = by_image(official)
    parts = [{i: found for i, found in results.items() if i % 3 == k} for k in (2, 0, 1)]
    merged = coco.merged(parts)
    assert list(merged.items()) == list(results.items())
    with pytest.raises(ValueError, match="image 2 was evaluated twice"):
        coco.merged([*parts, {2: []}])


def test_images_that_were_not_evaluated(official, truth):
    results = by_image(official)
    del results[3], results[5]
    with pytest.raises(DataError, match="truth.json has 8 images, of which 2 .* such as 3;"):
        coco.evaluate(truth, results, ["bbox"])


def test_without_the_packages(official, truth, monkeypatch):
    for package in ("faster_coco_eval", "pycocotools", "pycocotools.coco"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match="pip install faster-coco-eval, or"):
        coco.evaluate(truth, by_image(official), ["bbox"], "faster-coco-eval")
    with pytest.raises(DataError, match="pip install pycocotools"):
        coco.evaluate(truth, by_image(official), ["bbox"])


def test_official_miou(units):
    count = len(units["miou.iou_per_class"])
    pairs = zip(units["miou.gt"], units["miou.pred"], strict=True)
    matrix = functools.reduce(np.add, (miou.confusion(gt, found, count) for gt, found in pairs))
    assert matrix.dtype == np.int64 and matrix.sum() == (units["miou.gt"] != 255).sum()
    got = miou.scores(matrix)
    chex.assert_trees_all_close(got.iou, units["miou.iou_per_class"], rtol=1e-6)
    chex.assert_trees_all_close(got.accuracy, units["miou.acc_per_class"], rtol=1e-6)
    overall = [got.all_accuracy, got.mean_iou, got.mean_accuracy]
    chex.assert_trees_all_close(np.array(overall), units["miou.aAcc_mIoU_mAcc"], rtol=1e-6)


def test_classes_that_are_not_there():
    """Class 2 is found but not there: IoU 0, no accuracy. Class 3 is neither: it does not count."""
    got = miou.scores(miou.confusion(np.array([0, 0, 1, 255]), np.array([0, 2, 1, 3]), 4))
    chex.assert_trees_all_equal(got.iou, np.array([0.5, 1, 0, np.nan]))
    chex.assert_trees_all_equal(got.accuracy, np.array([0.5, 1, np.nan, np.nan]))
    assert (got.mean_iou, got.mean_accuracy) == (0.5, 0.75) and got.all_accuracy == 2 / 3


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="There is the label 4; the 4 classes are 0 to 3"):
        miou.confusion(np.array([4]), np.array([0]), 4)
    with pytest.raises(ValueError, match="There is the found class -1"):
        miou.confusion(np.array([3]), np.array([-1]), 4)
    with pytest.raises(ValueError, match=r"shape \(1,\), what was found \(2,\)"):
        miou.confusion(np.zeros(1, int), np.zeros(2, int), 4)
    with pytest.raises(ValueError, match="No pixel has a label"):
        miou.scores(np.zeros((4, 4), np.int64))


WORKER = """
import json, sys
import jax, numpy as np
from train.metrics import coco, miou

address, number, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(address, 2, number)
content = json.load(open(path))
images = [image["id"] for image in content["gt"]["images"]][number::2]
mine = {i: [d for d in content["detections"] if d["image_id"] == i] for i in images}
results = coco.gathered(mine)
matrix = np.array([[2**40 + 1, number], [3, 2**53]])
print(json.dumps([list(results.items()), miou.summed(matrix).tolist()]))
"""


@pytest.mark.slow
def test_two_processes_get_what_one_would(official, tmp_path):
    """Results of both, in order, and counts above 32 bits, exactly."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    path = tmp_path / "official.json"
    path.write_text(json.dumps(official))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, address, str(number), str(path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        results, matrix = json.loads(process.communicate(timeout=120)[0].splitlines()[-1])
        assert dict(results) == by_image(official)
        assert [i for i, _ in results] == sorted(by_image(official))
        assert matrix == [[2**41 + 2, 1], [6, 2**54]]


def test_coverage_of_the_means():
    names = ("sky", "sea", "sand")
    assert miou.coverage(np.eye(3, dtype=int), names) == "means over all 3 classes"
    matrix = np.array([[5, 0, 0], [1, 2, 0], [0, 0, 0]])
    assert miou.coverage(matrix, names) == "means over 2 of 3 classes, no pixel of sand"
    matrix[0, 2] = 1
    assert miou.coverage(matrix, names).endswith("; mIoU has 0 for sand, which was found")
    assert miou.scores(matrix).mean_iou == (5 / 7 + 2 / 3 + 0) / 3
    assert miou.scores(matrix).mean_accuracy == (5 / 6 + 2 / 3) / 2


def test_categories_that_the_file_lacks_are_not_measured(official, truth):
    """Whatever is found of them."""
    ids = sorted(category["id"] for category in official["gt"]["categories"])
    results = {}
    for image, found in by_image(official).items():
        boxes = np.array([[0, 0, 9, 9], *(d["bbox"] for d in found)], np.float64)
        boxes[1:, 2:] += boxes[1:, :2]
        results[image] = coco.detections(
            image,
            boxes,
            np.array([1.0, *(d["score"] for d in found)]),
            np.array([0, *(1 + ids.index(d["category_id"]) for d in found)]),
            (None, *ids),
        )
        assert len(results[image]) == len(found)
    got = list(coco.evaluate(truth, results, ["bbox"])[0].values())
    chex.assert_trees_all_close(got, official["stats"]["bbox"], rtol=0, atol=1e-12)


def test_areas_that_are_not_told_are_those_of_the_boxes(official, truth):
    got, gt = [], json.loads(truth.read_text())
    for told in (True, False):
        for one in gt["annotations"]:
            one["area"] = one["bbox"][2] * one["bbox"][3]
            if not told:
                del one["area"]
        truth.write_text(json.dumps(gt))
        got.append(coco.evaluate(truth, by_image(official), ["bbox"])[0])
    assert got[0] == got[1] and got[0]["AP"] > 0

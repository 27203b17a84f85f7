"""Fixtures of the official code, and small data sets in the layouts of COCO and ADE20K."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tests.oracles import downstream, golden
from train.data.dense.coco import open_coco
from train.data.fetching.fetch import DataError

CONFIG = """
from ssmjax import PruneConfig
from ssmjax.dense.backbones.ranges import DensePruneConfig
from train.config import Config, ModelConfig, OptimConfig
from train.data.dense.config import DetectionData, SegmentationData

config = Config(
    model=ModelConfig(
        name="{name}_plainmamba_l1", depth=2, embed_dim=16, d_state=2, ends=(1, 2), width=16{more}
    ),
    data={data},
    optim=OptimConfig(
        lr=1e-3, schedule="step", drop_epochs=(1,), epochs=1, batch_size=2, warmup_steps=2
    ),
    prune=DensePruneConfig((1,), 0.5),
    eval_batch_size=2,
    checkpoint_every=1,
    log_every=1,
    pictures=2,
)
"""
DETECTION = """DetectionData(
        path={folder!r},
        train_annotations="instances.json",
        train_images="images",
        eval_annotations="instances.json",
        eval_images="images",
        scale=(64, 64),
        shapes=((64, 64),),
    )"""
SEGMENTATION = """SegmentationData(
        path={folder!r}, class_names=("ant", "bee", "cup"), scale=(64, 64), crop=(64, 64)
    )"""
SIZES = [(48, 64), (64, 48), (64, 64), (40, 64)]


@pytest.fixture(scope="session", params=downstream.names("units_*"))
def units(request):
    """Single operations of the official code: name -> array."""
    return golden.arrays(f"downstream/{request.param}")


@pytest.fixture(scope="session", params=downstream.names("coco_eval_*"))
def official(request):
    """Annotations, detections, and the numbers that the official code gives them."""
    return json.loads((downstream.FOLDER / f"{request.param}.json").read_text())


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


def opened(folder, content, **options):
    """What is read of `content`, written with images."""
    return open_coco(*write_coco(folder, content), **options)


def refused(folder, content, **options):
    """As `opened`, which must fail: what it says."""
    with pytest.raises(DataError) as error:
        opened(folder, content, **options)
    return sentence(error)


def sentence(error):
    message = str(error.value)
    assert message.endswith((".", "!")) and "\n" not in message
    return message


def write_pairs(folder, sizes, num_values):
    """Images and label images of random values below `num_values`, in `folder`'s two folders."""
    for i, (h, w) in enumerate(sizes):
        write_image(folder / "images" / f"{i}.png", random_image(i, h, w))
        labels = np.random.default_rng(i).integers(0, num_values, (h, w)).astype(np.uint8)
        write_image(folder / "labels" / f"{i}.png", labels)
    return folder / "images", folder / "labels"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Data and configs of the three models."""
    folder = tmp_path_factory.mktemp("dense_tasks")
    objects = [
        annotation(i + 1, 10 * (i % 4 + 1), (4 + i, 5 + i, 20, 16), category_id=(3, 7)[i % 2])
        for i in range(8)
    ]
    write_coco(folder, coco_content(SIZES, objects))
    images, labels = write_pairs(folder / "pairs", SIZES, 3)
    for kind in (images, labels):
        for split in ("training", "validation"):
            shutil.copytree(kind, folder / "segments" / kind.name / split)
    segmentation = SEGMENTATION.format(folder=str(folder / "segments"))
    detection = DETECTION.format(folder=str(folder))
    for name, data in (
        ("upernet", segmentation),
        ("retinanet", detection),
        ("maskrcnn", detection),
    ):
        more = "" if name == "upernet" else ", heads=2"
        (folder / f"{name}.py").write_text(CONFIG.format(name=name, data=data, more=more))
    return folder

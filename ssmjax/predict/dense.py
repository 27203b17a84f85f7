"""What detectors and segmentors say of photos."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from ssmjax.analysis.pictures import without_pruned
from ssmjax.dense.backbones.adapter import LARGEST_STRIDE
from ssmjax.dense.geometry.masks import THRESHOLD, paste
from ssmjax.dense.heads.objects import Detections
from ssmjax.dense.mask_rcnn import MaskRCNN
from ssmjax.dense.registry import DenseModel
from ssmjax.dense.upernet import UperNet
from ssmjax.photos import fitting, read_photo
from ssmjax.predict.classes import class_names
from ssmjax.predict.options import Answer, Options, Row
from ssmjax.predict.pictures import legend, stacked, with_objects, with_segments
from ssmjax.preprocess import Preprocessing
from ssmjax.weights import Metadata

# Longest and shortest side that photos are resized to fit, as in the published evaluation.
DETECTION_SCALE, SEGMENTATION_SCALE = (1333, 800), (2048, 512)

NOTHING = ("nothing", "")  # The row of a photo on which nothing is found.


def predict(model: DenseModel, metadata: Metadata, options: Options) -> Answer:
    """The objects on each photo or the classes of its pixels, drawn on it; one after the other.

    Raises:
      ValueError: one sentence for people.
    """
    if not options.images:
        raise ValueError("No image was given; name one or more image files.")
    for path in options.images:
        read_photo(path)  # Before minutes go into the first one.
    names = class_names(metadata, model.config.num_classes)
    if isinstance(model, UperNet):
        look, headings = _segments, ("pixels of class", "share")
    else:
        look, headings = _objects, ("object", "score")
    rows, pictures = [], []
    for path in options.images:
        found, drawn = look(model, read_photo(path), metadata.preprocessing, names)
        rows.append(found[: options.top] or [NOTHING])
        pictures += drawn
    return Answer(headings, rows, stacked(pictures) if options.picture else None)


def _objects(
    model: DenseModel, photo: np.ndarray, preprocessing: Preprocessing, names: tuple[str, ...]
) -> tuple[list[Row], list[list[Image.Image]]]:
    """The objects on a photo, best first, and rows of pictures."""
    H, W = photo.shape[:2]
    height, width = fitting(H, W, DETECTION_SCALE)
    image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR)
    pads = [(0, -side % LARGEST_STRIDE) for side in (height, width)]
    padded = np.pad(preprocessing.normalise(image), (*pads, (0, 0)))[None]
    shapes = np.array([[height, width]], np.int32)
    found, kept = _detect(*nnx.split(model), padded, shapes)
    one = jax.tree.map(lambda a: np.asarray(a[0]), found)
    rows = [
        (
            f"{names[label]} at {', '.join(f'{side:.0f}' for side in place)}",
            f"{100 * score:.1f}%",
        )
        for label, place, score in zip(
            one.labels[one.valid],
            (one.boxes * ([W / width, H / height] * 2))[one.valid],
            one.scores[one.valid],
            strict=True,
        )
    ]
    if one.masks is not None:
        whole = paste(one.masks, one.boxes, (height, width))
        one = one._replace(masks=np.asarray(whole) >= THRESHOLD)
    drawn = [with_objects(image, one, names)]
    return rows, [[*drawn, *_kept_tiles(model, np.pad(image, (*pads, (0, 0))), kept, image.shape)]]


def _segments(
    model: DenseModel, photo: np.ndarray, preprocessing: Preprocessing, names: tuple[str, ...]
) -> tuple[list[Row], list[list[Image.Image]]]:
    """The classes of a photo's pixels, the most frequent first, and rows of pictures."""
    fitted = fitting(photo.shape[0], photo.shape[1], SEGMENTATION_SCALE)
    aligned = tuple(-(-side // LARGEST_STRIDE) * LARGEST_STRIDE for side in fitted)
    image = photo
    for height, width in (fitted, aligned):  # One after the other, as in the published evaluation.
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    logits, kept = _classify(*nnx.split(model), preprocessing.normalise(image)[None])
    classes = np.asarray(jnp.argmax(logits[0], axis=-1))
    counts = np.bincount(classes.ravel(), minlength=model.config.num_classes)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    rows = [(names[label], f"{100 * counts[label] / classes.size:.1f}%") for label in order]
    drawn = [with_segments(image, classes), *_kept_tiles(model, image, kept, image.shape)]
    return rows, [drawn, [legend(classes, names, image.shape[1])]]


@partial(jax.jit, static_argnums=0)
def _detect(graphdef, state, images, shapes) -> tuple[Detections, tuple]:
    """What is found, with masks where the model makes them, and what each range keeps."""
    model, key = nnx.merge(graphdef, state), jax.random.key(0)
    masks: Any = {"masks": True} if isinstance(model, MaskRCNN) else {}
    return model.detect(images, shapes, key=key, return_positions=True, **masks)


@partial(jax.jit, static_argnums=0)
def _classify(graphdef, state, images) -> tuple[jax.Array, tuple]:
    """Logits, and what each range keeps."""
    model, key = nnx.merge(graphdef, state), jax.random.key(0)
    return model(images, key=key, return_positions=True)


def _kept_tiles(
    model: DenseModel, image: np.ndarray, kept: Sequence[jax.Array | None], shape: tuple[int, ...]
) -> Iterator[Image.Image]:
    """The image after each range of blocks that prunes, what was pruned so far greyed out.

    Args:
      model: that keeps them.
      image: [height,width,3] uint8, as the model sees it.
      kept: of each range, the cells [1,K] that are left, None for all.
      shape: of the image without padding.
    """
    trunk = dataclasses.replace(model.config.backbone.trunk, img_size=image.shape[:2])
    tile, before = Image.fromarray(image), trunk.length
    for cells in kept:
        if cells is None or cells.shape[1] == before:
            continue
        before = cells.shape[1]
        is_kept = np.zeros(trunk.length, bool)
        is_kept[np.asarray(cells[0])] = True
        picture = without_pruned(tile, tile, is_kept.reshape(trunk.grid), trunk)
        yield picture.crop((0, 0, shape[1], shape[0]))

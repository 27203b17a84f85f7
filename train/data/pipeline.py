"""From a prepared TFDS data set to batches of normalised images, on `grain`.

Images stay encoded until a whole batch of them is read, decoded and augmented at once, which
is several times faster than one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import grain
import numpy as np

from train.data import cifar10
from train.data.fetch import DataError
from train.data.source import Source

Batch = dict[str, np.ndarray]
Channels = tuple[float, float, float]

CROP_MARGIN = 4  # Pixels by which a training crop may move to each side.

# Two threads prepare batches ahead; they rest while these four wait for the training step.
_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def train_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    augment: bool,
    mean: Channels = cifar10.CIFAR_MEAN,
    std: Channels = cifar10.CIFAR_STD,
) -> grain.DatasetIterator[Batch]:
    """Endless shuffled batches for training, each epoch in another order.

    The batches depend on the arguments alone. `get_state()` of the iterator gives a small
    JSON-like dict; `set_state()` of one made with the same arguments goes on right there,
    also in the middle of an epoch.

    Args:
        source: encoded examples, as in `Split.source`.
        batch_size: images a batch; the rest of an epoch that does not fill one is dropped.
        image_size: height and width of the batches' images, in pixels; images of another
            size are resized (bicubic).
        seed: 0 to 2**32 - 1.
        augment: whether to move each image by up to `CROP_MARGIN` pixels (the border is
            mirrored) and flip half of them left to right.
        mean, std: per channel (red, green, blue), on a scale of 0 to 1.

    Returns: an iterator over dicts with `image`, float32 (batch_size, image_size, image_size,
        3), and `label`, int32 (batch_size,).

    Raises:
        DataError: the source cannot fill one batch; while iterating, an unreadable image.
        ValueError: the seed is out of range.
    """
    if len(source) < batch_size:
        raise DataError(
            f"This split has {len(source):,} images, fewer than one batch of {batch_size:,}: "
            f"choose a batch size of at most {len(source):,}."
        )
    batches = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .batch(batch_size, drop_remainder=True, batch_fn=source.__getitems__)
        .map(partial(_decode, image_size=image_size))
    )
    if augment:
        batches = batches.random_map(_augment)
    batches = batches.map(partial(_normalise, mean=mean, std=std)).repeat()
    return iter(batches.to_iter_dataset(_AHEAD))


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    mean: Channels = cifar10.CIFAR_MEAN,
    std: Channels = cifar10.CIFAR_STD,
) -> grain.DatasetIterator[Batch]:
    """Every example once, in order, in batches of one size, so that a jitted step compiles once.

    Args: as in `train_batches`.

    Returns: an iterator over dicts with `image`, float32 (batch_size, image_size, image_size,
        3), `label`, int32 (batch_size,), and `mask`, bool (batch_size,): False for the zeros
        that fill up the last batch.

    Raises:
        DataError: while iterating, an unreadable image.
    """
    batches = (
        grain.MapDataset.range(len(source))
        .batch(batch_size, batch_fn=source.__getitems__)
        .map(partial(_decode, image_size=image_size))
        .map(partial(_normalise, mean=mean, std=std))
        .map(partial(_fill_up, batch_size=batch_size))
    )
    return iter(batches.to_iter_dataset(_AHEAD))


def _decode(examples: Sequence[dict[str, Any]], *, image_size: int) -> Batch:
    """Encoded examples to uint8 RGB images of one size, (batch, size, size, 3), and labels."""
    images = np.empty((len(examples), image_size, image_size, 3), np.uint8)
    for image, example in zip(images, examples, strict=True):
        # A grey image becomes one of three equal channels.
        pixels = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise DataError(
                f"An image of the data set (label {example['label']}, {len(example['image']):,} "
                "bytes) is neither a readable PNG nor JPEG: delete the data set and prepare it "
                "again."
            )
        if pixels.shape != image.shape:
            pixels = cv2.resize(pixels, (image_size, image_size), interpolation=cv2.INTER_CUBIC)
        image[:] = pixels
    return {"image": images, "label": np.array([e["label"] for e in examples], np.int32)}


def _augment(batch: Batch, rng: np.random.Generator) -> Batch:
    """Move and flip each of the square images, (batch, size, size, 3), on its own."""
    images = batch["image"]
    count, size = images.shape[:2]
    top, left = rng.integers(0, 2 * CROP_MARGIN + 1, (2, count, 1))
    flip = rng.random((count, 1)) < 0.5
    # Which pixel of the image lies at each place of the padded one, the same for both axes.
    padded = np.pad(np.arange(size), CROP_MARGIN, mode="reflect")
    along = np.arange(size)
    rows = padded[top + along]
    columns = padded[left + np.where(flip, along[::-1], along)]
    # One gather crops and flips: (count, 1, 1), (count, size, 1) and (count, 1, size) spread
    # to (count, size, size).
    which = np.arange(count)[:, None, None]
    return {**batch, "image": images[which, rows[:, :, None], columns[:, None, :]]}


def _normalise(batch: Batch, *, mean: Channels, std: Channels) -> Batch:
    """uint8 images of 0 to 255 to float32 of zero mean and unit deviation per channel."""
    scale = 1 / (255 * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    return {**batch, "image": batch["image"] * scale - shift}


def _fill_up(batch: Batch, *, batch_size: int) -> Batch:
    """Add zeros up to `batch_size` to every array, and the mask that tells them apart."""
    missing = batch_size - len(batch["label"])
    batch = {**batch, "mask": np.ones(batch_size - missing, bool)}
    return {
        key: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for key, array in batch.items()
    }

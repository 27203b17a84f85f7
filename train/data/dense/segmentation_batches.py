"""Batches of images with a label for each pixel."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from ssmjax.photos import fitting
from train.data.dense import transforms
from train.data.dense.ade20k import PairSplit
from train.data.dense.batches import Epochs, OnePass, Shape, every_image, one_pass
from train.data.dense.files import label_size
from train.data.prefetch import LAST, Batch, own_rows, prefetched


def epoch_order(split: PairSplit, batch_size: int, seed: int) -> Epochs:
    """Which images each training batch holds."""
    return Epochs((np.arange(len(split.pairs)),), batch_size, seed)


def train_batches(
    split: PairSplit,
    order: Epochs,
    *,
    scale: Shape,
    crop: Shape,
    first: int = 0,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless shuffled batches of random parts, resized, flipped and distorted, of one shape.

    Args:
      split: images and label images.
      order: `epoch_order` of the same split.
      scale: longer and shorter side that images are resized to fit, times 0.5 to 2.
      crop: height and width of the parts.
      first, workers, process: as of `train.data.pipeline.train_batches`.

    Returns:
      An iterator over dicts, with b = `order.batch_size` / count:
        `image` [b,*crop,3] uint8, RGB, zero in the padding; see `dense.batches.normalise`;
        `img_shape` [b,2] int32, height and width of the part in it;
        `label` [b,*crop] uint8, 255 for none;
        `index` [b] int64, the image's number in the split; `mask` [b] bool, True.
      Values depend on the batch number and row, and the arguments up to `crop` alone.

    Raises:
      DataError: while iterating, as `PairSplit.read`.
      ValueError: the batch size is not possible.
    """
    make = _TrainBatch(split, order, own_rows(order.batch_size, process), scale, crop)
    return prefetched(make, first, LAST, workers)


def eval_pass(split: PairSplit, *, batch_size: int, scale: Shape) -> OnePass:
    """Which images each evaluation batch holds: those of one size, both sides multiples of 32.

    Nothing is padded, since the heads see the whole image; so a jitted step compiles for every
    size there is, which `OnePass.shapes` counts.

    Raises:
      DataError: an image is missing or unreadable.
    """
    sizes = [label_size(labels) for _, labels in split.pairs]
    return one_pass([_aligned(size, scale)[1] for size in sizes], batch_size)


def _aligned(size: Shape, scale: Shape) -> tuple[Shape, Shape]:
    """What an image is resized to, first and then."""
    first = fitting(*size, scale)
    return first, transforms.padded(*first)


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
    """Makes the training batch of a number."""

    split: PairSplit
    order: Epochs
    rows: range
    scale: Shape
    crop: Shape

    def __call__(self, number: int) -> Batch:
        index = self.order.batch(number)[self.rows.start : self.rows.stop]
        b = len(index)
        batch = {
            "image": np.zeros((b, *self.crop, 3), np.uint8),
            "img_shape": np.zeros((b, 2), np.int32),
            "label": np.full((b, *self.crop), transforms.IGNORED, np.uint8),
            "index": index,
            "mask": np.ones(b, bool),
        }
        for i, row in enumerate(self.rows):
            rng = transforms.row_rng(self.order.seed, number, row)
            image, labels = self._part(*self.split.read(index[i]), rng)
            h, w = batch["img_shape"][i] = labels.shape
            batch["image"][i, :h, :w], batch["label"][i, :h, :w] = image, labels
        return batch

    def _part(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random part of an image and its labels."""
        scale = transforms.random_scale(self.scale, rng)
        size = fitting(labels.shape[0], labels.shape[1], scale)
        labels = transforms.resize_labels(labels, size)
        part = transforms.random_crop(labels, self.crop, rng)
        image, labels = transforms.resize(image, size)[part], labels[part]
        if rng.random() < 0.5:
            image, labels = transforms.flip(image), transforms.flip(labels)
        return transforms.distort(image, rng), labels


@dataclasses.dataclass(frozen=True)
class _EvalBatch:
    """Makes the evaluation batch of a number: images resized to fit, then up to multiples of 32.

    It has `image`, `img_shape`, `index` and `mask` as of `train_batches`; `label` [b,h,w] uint8 of
    the original size, with 255 up to the batch's largest; and `original_shape` [b,2] int32, height
    and width of each.
    """

    split: PairSplit
    plan: OnePass
    rows: range
    scale: Shape

    def __call__(self, number: int) -> Batch:
        shape, index = self.plan.batches[number]
        # Of the whole batch, so that all processes agree.
        sizes = np.array([label_size(self.split.pairs[i][1]) for i in index if i >= 0])
        index = index[self.rows.start : self.rows.stop]
        b = len(index)
        batch = {
            "image": np.zeros((b, *shape, 3), np.uint8),
            "img_shape": np.tile(np.array(shape, np.int32), (b, 1)),
            "label": np.full((b, *sizes.max(0)), transforms.IGNORED, np.uint8),
            "original_shape": np.ones((b, 2), np.int32),
            "index": index,
            "mask": index >= 0,
        }
        for i in np.flatnonzero(index >= 0):
            image, labels = self.split.read(index[i])
            h, w = batch["original_shape"][i] = labels.shape
            first, then = _aligned((h, w), self.scale)
            batch["image"][i] = transforms.resize(transforms.resize(image, first), then)
            batch["label"][i, :h, :w] = labels
        return batch


eval_batches = functools.partial(every_image, _EvalBatch)

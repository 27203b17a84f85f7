"""Batches of images with boxes and masks, padded to a few shapes."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from ssmjax.photos import fitting
from train.data.dense import transforms
from train.data.dense.batches import Epochs, OnePass, Shape, every_image, one_pass, smallest_shape
from train.data.dense.coco import CocoSplit, Photo, bitmaps
from train.data.dense.files import read_image
from train.data.dense.turned import check_not_turned
from train.data.fetching.fetch import DataError
from train.data.prefetch import LAST, Batch, own_rows, prefetched

FEWEST_SLOTS = 8  # For the objects of an image.


def epoch_order(split: CocoSplit, batch_size: int, seed: int) -> Epochs:
    """Which images each training batch holds: all of it wider than high, or none."""
    wide = np.array([photo.width > photo.height for photo in split.photos])
    groups = tuple(np.flatnonzero(group) for group in (~wide, wide) if group.any())
    return Epochs(groups, batch_size, seed)


def train_batches(
    split: CocoSplit,
    order: Epochs,
    *,
    scale: Shape,
    shapes: Sequence[Shape],
    flip: float,
    first: int = 0,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless shuffled batches, each of wide images or of high and square ones.

    A jitted step compiles once for each of `shapes` that occurs with each number G of slots for
    objects. G is a power of two from `FEWEST_SLOTS` on that holds the objects of each image of the
    batch, or the most that any image of the split has, if that is less.

    Args:
      split: images with objects.
      order: `epoch_order` of the same split.
      scale: longer and shorter side that images are resized to fit, the ratio kept.
      shapes: height and width that batches are padded to; each takes the smallest that holds it.
      flip: probability of a flip from left to right.
      first, workers, process: as of `train.data.pipeline.train_batches`.

    Returns:
      An iterator over dicts, with b = `order.batch_size` / count, H, W one of `shapes`, and G
      slots:
        `image` [b,H,W,3] uint8, RGB, zero in the padding; see `dense.batches.normalise`;
        `img_shape` [b,2] int32, its height and width without the padding;
        `pad_shape` [b,2] int32, the same up to multiples of 32;
        `gt_boxes` [b,G,4] float32; `gt_labels` [b,G] int32; `gt_valid` [b,G] bool;
        `gt_masks` [b,G,H,W/8] uint8, if the split has masks: bit maps along the width, to be
          unpacked by `jnp.unpackbits(..., axis=-1)`; 13 MB an image at 100 x 800 x 1344;
        `index` [b] int64, the image's number in the split;
        `mask` [b] bool, True.
      Values depend on the batch number and row, and the arguments up to `flip` alone.

    Raises:
      DataError: while iterating, an image is missing, unreadable or of another size than its
        annotations say.
      ValueError: the batch size is not possible, or no shape holds the images.
    """
    rows = own_rows(order.batch_size, process)
    sizes = _sizes(split, scale)
    for group in order.groups:
        smallest_shape(shapes, sizes[group])
    objects = np.array([len(photo.labels) for photo in split.photos])
    make = _TrainBatch(split, order, rows, sizes, tuple(shapes), objects, flip)
    return prefetched(make, first, LAST, workers)


def eval_pass(
    split: CocoSplit, *, batch_size: int, scale: Shape, shapes: Sequence[Shape] | None
) -> OnePass:
    """Which images each evaluation batch holds; `shapes` None pads each to its own shape.

    The latter is what the official code does with single images, to the last digit, but compiles
    for every shape there is, which `OnePass.shapes` counts.

    Raises:
      ValueError: no shape holds an image.
    """
    sizes = _sizes(split, scale)
    own = [
        transforms.padded(*size) if shapes is None else smallest_shape(shapes, np.array([size]))
        for size in sizes.tolist()
    ]
    return one_pass(own, batch_size)


def slots(objects: np.ndarray, most: int) -> int:
    """How many slots a batch has for the objects of its images; `most` has any of the split."""
    needed = max(FEWEST_SLOTS, int(objects.max()))
    return min(1 << (needed - 1).bit_length(), most)


def _sizes(split: CocoSplit, scale: Shape) -> np.ndarray:
    """[images,2] int64: height and width, resized."""
    return np.array([fitting(p.height, p.width, scale) for p in split.photos])


def _resized(photo: Photo, size: Shape) -> np.ndarray:
    image = read_image(photo.path)
    if image.shape[:2] != (photo.height, photo.width):
        check_not_turned(photo.path, image.shape[:2], (photo.height, photo.width))
        raise DataError(
            f"The image {photo.path} has {image.shape[0]} x {image.shape[1]} pixels, its "
            f"annotations say {photo.height} x {photo.width}; one of them is of another data set."
        )
    return transforms.resize(image, size)


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
    """Makes the training batch of a number."""

    split: CocoSplit
    order: Epochs
    rows: range
    sizes: np.ndarray
    shapes: tuple[Shape, ...]
    objects: np.ndarray
    flip: float

    def __call__(self, number: int) -> Batch:
        index = self.order.batch(number)
        # Of the whole batch, so that all processes agree.
        height, width = smallest_shape(self.shapes, self.sizes[index])
        G = slots(self.objects[index], int(self.objects.max()))
        index = index[self.rows.start : self.rows.stop]
        b = len(index)
        batch = {
            "image": np.zeros((b, height, width, 3), np.uint8),
            "img_shape": self.sizes[index].astype(np.int32),
            "pad_shape": np.array(
                [transforms.padded(*size) for size in self.sizes[index]], np.int32
            ),
            "gt_boxes": np.zeros((b, G, 4), np.float32),
            "gt_labels": np.zeros((b, G), np.int32),
            "gt_valid": np.zeros((b, G), bool),
            "index": index,
            "mask": np.ones(b, bool),
        }
        if self.split.masks:
            batch["gt_masks"] = np.zeros((b, G, height, width // 8), np.uint8)
        for i, row in enumerate(self.rows):
            rng = transforms.row_rng(self.order.seed, number, row)
            self._fill(batch, i, self.split.photos[index[i]], rng.random() < self.flip)
        return batch

    def _fill(self, batch: Batch, i: int, photo: Photo, flipped: bool) -> None:
        """Put an image and its objects into row `i`."""
        size = h, w = tuple(batch["img_shape"][i].tolist())
        image = _resized(photo, size)
        batch["image"][i, :h, :w] = transforms.flip(image) if flipped else image
        factor = transforms.scale_factor((photo.height, photo.width), size)
        boxes = transforms.resize_boxes(photo.boxes, factor, size)
        count = len(boxes)
        batch["gt_boxes"][i, :count] = transforms.flip_boxes(boxes, w) if flipped else boxes
        batch["gt_labels"][i, :count] = photo.labels
        batch["gt_valid"][i, :count] = True
        if self.split.masks:
            for packed, mask in zip(batch["gt_masks"][i], bitmaps(photo), strict=False):
                mask = transforms.resize_labels(mask, size)
                bits = np.packbits(transforms.flip(mask) if flipped else mask, axis=-1)
                packed[:h, : bits.shape[1]] = bits


@dataclasses.dataclass(frozen=True)
class _EvalBatch:
    """Makes the evaluation batch of a number: images without their objects.

    It has `image`, `img_shape`, `pad_shape`, `index` and `mask` as of `train_batches`, and
      `scale_factor` [b,4] float32, what boxes of the original image are multiplied by;
      `original_shape` [b,2] int32, its height and width;
      `image_id` [b] int64, as in the annotations.
    In rows that fill it up `image_id` is -1, and sizes and factors are 1.
    """

    split: CocoSplit
    plan: OnePass
    rows: range
    scale: Shape

    def __call__(self, number: int) -> Batch:
        shape, index = self.plan.batches[number]
        index = index[self.rows.start : self.rows.stop]
        b = len(index)
        batch = {
            "image": np.zeros((b, *shape, 3), np.uint8),
            "img_shape": np.ones((b, 2), np.int32),
            "pad_shape": np.ones((b, 2), np.int32),
            "scale_factor": np.ones((b, 4), np.float32),
            "original_shape": np.ones((b, 2), np.int32),
            "image_id": np.full(b, -1, np.int64),
            "index": index,
            "mask": index >= 0,
        }
        for i in np.flatnonzero(index >= 0):
            photo = self.split.photos[index[i]]
            original = photo.height, photo.width
            size = fitting(*original, self.scale)
            batch["image"][i, : size[0], : size[1]] = _resized(photo, size)
            batch["img_shape"][i], batch["pad_shape"][i] = size, transforms.padded(*size)
            batch["scale_factor"][i] = transforms.scale_factor(original, size)
            batch["original_shape"][i], batch["image_id"][i] = original, photo.image_id
        return batch


eval_batches = functools.partial(every_image, _EvalBatch)

"""What batches of detection and segmentation share: which images each one holds, normalising."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssmjax.preprocess import IMAGENET, Preprocessing
from train.data.prefetch import Batch, own_rows, prefetched

Shape = tuple[int, int]  # Height and width.


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Shuffled images in batches, each of images of one group, for endless epochs.

    Every epoch has each image in another order; groups that do not fill their last batch repeat
    images of their own, as mmdetection's GroupSampler does.

    Attributes:
      groups: numbers of the images of each group, such as wide and tall ones.
      batch_size: B, of all processes together.
      seed: of the order.
    """

    groups: tuple[np.ndarray, ...]
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return sum(-(-len(group) // self.batch_size) for group in self.groups)

    def batch(self, number: int) -> np.ndarray:
        """The images of a batch, [B] int64, from (groups, batch_size, seed) and its number."""
        epoch, step = divmod(number, self.steps)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, epoch)))
        batches = []
        for group in self.groups:
            count = -(-len(group) // self.batch_size)
            order = np.resize(rng.permutation(group), count * self.batch_size)
            batches.append(order.reshape(count, self.batch_size))
        return np.concatenate(batches)[rng.permutation(self.steps)[step]]


@dataclasses.dataclass(frozen=True)
class OnePass:
    """Every image once, in batches of images of one padded shape.

    Attributes:
      batches: of each, its shape and the numbers of its images, [B] int64, -1 where a row is empty.
    """

    batches: tuple[tuple[Shape, np.ndarray], ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that there are: a jitted step compiles once for each."""
        return tuple(sorted({shape for shape, _ in self.batches}))


def one_pass(shapes: Sequence[Shape], batch_size: int) -> OnePass:
    """Batches, of all processes together, of the images of each padded shape, in order."""
    batches = []
    for shape in sorted(set(shapes)):
        index = np.array([i for i, own in enumerate(shapes) if own == shape], np.int64)
        filled = np.pad(index, (0, -len(index) % batch_size), constant_values=-1)
        batches += [(shape, rows) for rows in filled.reshape(-1, batch_size)]
    return OnePass(tuple(batches))


def every_image(
    make: Callable[..., Callable[[int], Batch]],
    split: Any,
    plan: OnePass,
    *,
    scale: Shape,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Evaluation batches with every image once; all processes get equally many.

    Rows that fill up a batch have `mask` False, `index` -1 and a black image.

    Args:
      make: from split, plan, a process' rows and scale, what makes the batch of a number.
      split: the images.
      plan: `eval_pass` of the same split and scale.
      scale: longer and shorter side that images are resized to fit, the ratio kept.
      workers, process: as of `train.data.pipeline.train_batches`.

    Raises:
      DataError: while iterating, an image is missing, unreadable or not as its annotations say.
      ValueError: the batch size is not possible.
    """
    rows = own_rows(len(plan.batches[0][1]), process)
    return prefetched(make(split, plan, rows, scale), 0, len(plan.batches), workers)


def smallest_shape(shapes: Sequence[Shape], sizes: np.ndarray) -> Shape:
    """The smallest of `shapes` that holds images of all `sizes`, [n,2], height and width.

    Raises:
      ValueError: none does.
    """
    height, width = (int(side) for side in sizes.max(0))
    holding = [shape for shape in shapes if height <= shape[0] and width <= shape[1]]
    if not holding:
        raise ValueError(
            f"The padded shapes are {', '.join(f'{h} x {w}' for h, w in shapes)}, but images have "
            f"up to {height} x {width} pixels; add a shape that holds them."
        )
    return min(holding, key=lambda shape: (shape[0] * shape[1], shape))


def normalise(
    images: jax.Array, img_shape: jax.Array, preprocessing: Preprocessing = IMAGENET
) -> jax.Array:
    """Images as the models take them: zero mean, unit deviation, and 0 in the padding.

    Args:
      images: [B,H,W,3] uint8, RGB.
      img_shape: [B,2] int32, height and width of each image without padding.
      preprocessing: of the model.

    Returns:
      [B,H,W,3] float32.
    """
    rows = jnp.arange(images.shape[1])[None, :, None, None] < img_shape[:, 0, None, None, None]
    columns = jnp.arange(images.shape[2])[None, None, :, None] < img_shape[:, 1, None, None, None]
    return jnp.where(rows & columns, preprocessing.normalise(images), 0)

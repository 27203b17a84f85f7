"""Batches of photos of one size: read, decoded, augmented and prefetched on `grain`.

A batch follows from its number: the number says which photos are in it, and with the row drives the
augmentation. So the state of the data is that one number, and a run can go on at any batch, with
other workers, or spread over other processes. Photos stay encoded until their batch is made.
"""

import dataclasses
import functools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssmjax.photos import Size, middle
from train.augment.recipe import Recipe
from train.data.decode import decode
from train.data.fetching.fetch import DataError
from train.data.prefetch import LAST, Batch, own_rows, prefetched
from train.data.sources.source import Split


def train_batches(
    split: Split,
    *,
    recipe: Recipe,
    batch_size: int,
    seed: int,
    first: int = 0,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless shuffled batches for training, each epoch in another order.

    Args:
      split: encoded examples.
      recipe: what happens to each photo, and the size of the images; with `augment.repeats` r, an
        epoch is made of every r-th photo of its order, r times each (repeated augmentation, Hoffer
        et al., arXiv 1901.09335).
      batch_size: B, images a batch, of all processes together; the rest of an epoch that does not
        fill one is dropped.
      seed: 0 to 2**32 - 1.
      first: number of the first batch; a run resumes with the number of batches it has seen.
      workers: processes that make the batches; 0 makes them in threads of this one. They end with
        the iterator: when it is closed, or nobody holds it any more.
      process: number and count of the processes that train together; each gets its own rows.

    Returns:
      An iterator over dicts, with b = B / count:
        `image` [b,height,width,3] uint8, RGB;
        `label` [b] int32;
        `index` [b] int64, the photo's number in the split;
        `mask` [b] bool, False where that photo cannot be read: the row then has image and label of
        the batch's next readable one.
      Values depend on split, recipe, batch_size, seed, batch number and row alone.

    Raises:
      DataError: the split cannot fill one batch; while iterating, no photo of a batch is readable.
      ValueError: seed or batch size are not possible.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it must be from 0 to 2**32 - 1.")
    steps, rows = epoch_steps(split, batch_size), own_rows(batch_size, process)
    make = _TrainBatch(split, recipe, batch_size, steps, rows, seed)
    return prefetched(make, first, LAST, workers)


def eval_batches(
    split: Split,
    *,
    batch_size: int,
    size: Size,
    crop_pct: float = 1.0,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every photo once, in order, in batches of one size, so that a jitted step compiles once.

    Args: as of `train_batches`, and
      crop_pct: share of a photo's shorter side that is taken; see `ssmjax.photos.middle`.

    Returns:
      An iterator over dicts as of `train_batches`; all processes get equally many. `mask` is False
      for photos that cannot be read, whose images are zero, and for the rows that fill up the last
      batch: there image and label are zero too, and `index` is -1.

    Raises:
      ValueError: the batch size is not possible.
    """
    make = _EvalBatch(split, batch_size, own_rows(batch_size, process), size, crop_pct)
    return prefetched(make, 0, -(-len(split.source) // batch_size), workers)


def epoch_steps(split: Split, batch_size: int) -> int:
    """Whole batches of `batch_size` photos in an epoch.

    Raises:
      DataError: there is none.
    """
    count = len(split.source)
    if count < batch_size:
        raise DataError(
            f"{split.title} has {count:,} photos, fewer than one batch of {batch_size:,}: choose a "
            f"batch size of at most {count:,}."
        )
    return count // batch_size


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
    """Makes the training batch of a number."""

    split: Split
    recipe: Recipe
    batch_size: int
    steps: int
    rows: range
    seed: int

    def __call__(self, number: int) -> Batch:
        made = self._make(number, self.rows)
        if len(made) < len(self.rows):  # The next readable row may be another process' own.
            others = [row for row in range(self.batch_size) if row not in self.rows]
            made |= self._make(number, others)
        if not made:
            raise DataError(
                f"Not one photo of batch {number} of {self.split.title} can be read: prepare the "
                "data set again."
            )
        readable = sorted(made)
        shown = [readable[bisect_left(readable, row) % len(readable)] for row in self.rows]
        return {
            "image": np.stack([made[row][0] for row in shown]),
            "label": np.array([made[row][1] for row in shown], np.int32),
            "index": np.array(self._photos(number, self.rows), np.int64),
            "mask": np.array(shown) == np.array(self.rows),
        }

    def _make(self, number: int, rows: Sequence[int]) -> dict[int, tuple[np.ndarray, int]]:
        """Image and label of those of the rows whose photo can be read."""
        made = {}
        examples = _read(self.split, self._photos(number, rows))
        for row, example in zip(rows, examples, strict=True):
            photo = decode(example["image"])
            if photo is not None:
                made[row] = self.recipe(photo, self._rng(number, row)), example["label"]
        return made

    def _photos(self, number: int, rows: Sequence[int]) -> list[int]:
        """Which photo is in each of the rows."""
        epoch, step = divmod(number, self.steps)
        order = _order(len(self.split.source), self.seed, epoch)
        repeats = self.recipe.augment.repeats
        return [int(order[(step * self.batch_size + row) // repeats]) for row in rows]

    def _rng(self, number: int, row: int) -> np.random.Generator:
        """The generator of one row, which alone counts up the counter's lower words."""
        return np.random.Generator(
            np.random.Philox(key=[self.seed, number], counter=[0, 0, 0, row])
        )


@dataclasses.dataclass(frozen=True)
class _EvalBatch:
    """Makes the evaluation batch of a number."""

    split: Split
    batch_size: int
    rows: range
    size: Size
    crop_pct: float

    def __call__(self, number: int) -> Batch:
        count = len(self.rows)
        start = number * self.batch_size + self.rows.start
        index = range(start, min(start + count, len(self.split.source)))
        batch = {
            "image": np.zeros((count, *self.size, 3), np.uint8),
            "label": np.zeros(count, np.int32),
            "index": np.full(count, -1, np.int64),
            "mask": np.zeros(count, bool),
        }
        for row, example in enumerate(_read(self.split, index)):
            photo = decode(example["image"])
            batch["label"][row], batch["index"][row] = example["label"], index[row]
            if photo is not None:
                batch["image"][row] = middle(photo, self.size, self.crop_pct)
                batch["mask"][row] = True
        return batch


@functools.lru_cache(maxsize=2)  # Prefetched batches may be of the next epoch already.
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The photos of a split, [count] int64, in the order of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def _read(split: Split, index: Sequence[int]) -> Sequence[dict[str, Any]]:
    return split.source.__getitems__(index) if index else []

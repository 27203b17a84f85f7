"""Label images: the class of each pixel, and which classes a split has pixels of at all."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ssmjax.terminal import track
from train.data.dense.files import read_labels
from train.data.dense.transforms import IGNORED
from train.data.fetching.fetch import DataError
from train.data.sources.classes import listed


def read_classes(path: Path, count: int, zero_is_none: bool) -> np.ndarray:
    """The classes in a label image, [H,W] uint8, 255 where there is none.

    With `zero_is_none` 0 is no class, and class c is c + 1; otherwise class c is c.

    Raises:
      DataError: the file is missing or unreadable, or a label is not that of a class.
    """
    values, first = read_labels(path), int(zero_is_none)
    none = (values == IGNORED) | (zero_is_none & (values == 0))
    wrong = values[~none & ((values < first) | (values >= first + count))]
    if wrong.size:
        highest = f"1 to {count}, or 0" if zero_is_none else f"0 to {count - 1}"
        raise DataError(
            f"The label image {path} has the value {wrong[0]}; the {count} classes are "
            f"{highest} or {IGNORED} where there is none."
        )
    return np.where(none, IGNORED, values - first).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is in the label images of a split.

    Attributes:
      title: what messages call the split.
      class_names: in the order of the labels.
      zero_is_none: as of `read_classes`.
      images: how many could be read.
      pixels: of each class.
      ignored: pixels of no class.
      broken: what is wrong with each of the other images.
    """

    title: str
    class_names: tuple[str, ...]
    zero_is_none: bool
    images: int
    pixels: tuple[int, ...]
    ignored: int
    broken: tuple[str, ...]

    def check(self) -> None:
        """Refuse label images with pixels of one class alone, where there are several.

        A mask of 0 and 255 for the classes 0 and 1 is such: a model that never finds its object
        would be right at every pixel that counts.

        Raises:
          DataError: naming the classes that never occur, and how many pixels are ignored.
        """
        absent, classes = self._absent, len(self.class_names)
        if classes < 2 or len(absent) < classes - 1 or self.broken:
            return
        there = [name for name in self.class_names if name not in absent]
        have = f"pixels of {there[0]} alone and none of" if there else "no pixels of"
        raise DataError(
            f"{self.title}: its {self.images:,} label images have {have} {listed(absent)}, so "
            f"there is nothing to learn or to measure{self._ignored or '.'}"
        )

    def remarks(self) -> Iterator[str]:
        """Sentences on classes without a pixel, pixels of no class and broken label images."""
        if absent := self._absent:
            yield (
                f"{self.title}: {len(absent):,} of {len(self.class_names):,} classes have no pixel:"
                f" {listed(absent)}{self._ignored or '.'}"
            )
        elif self.ignored:
            yield f"{self.title}{self._ignored.replace(';', ':', 1)}"
        if self.broken:
            yield (
                f"{self.title}: {len(self.broken):,} label images stop the run when they are met. "
                f"{self.broken[0]}"
            )

    @property
    def _absent(self) -> list[str]:
        return [n for n, count in zip(self.class_names, self.pixels, strict=True) if not count]

    @property
    def _ignored(self) -> str:
        """The end of a sentence, empty where all pixels are of a class."""
        if not self.ignored:
            return ""
        share = 100 * self.ignored / (self.ignored + sum(self.pixels))
        none = f"0 or {IGNORED}" if self.zero_is_none else str(IGNORED)
        counts = f"; {self.ignored:,} pixels ({share:.1f}%) are {none} and do not count."
        absent = self._absent
        if not absent or self.zero_is_none:
            return counts
        what = absent[0] if len(absent) == 1 else f"one of them, such as {absent[0]}"
        number = self.class_names.index(absent[0])
        return f"{counts} If {IGNORED} means {what}, it must be written as {number}."


@functools.lru_cache(maxsize=8)  # A run may open its splits more than once.
def survey(
    paths: tuple[Path, ...],
    changed: tuple[tuple[int, int], ...],
    class_names: tuple[str, ...],
    zero_is_none: bool,
    title: str,
) -> Survey:
    """Count the pixels of label images, in threads and under a progress bar.

    `changed` has sizes and times of the files: the same ones are counted once in a process. The
    other arguments are as of `Survey`.
    """
    classes, total, broken = len(class_names), np.zeros(IGNORED + 1, np.int64), []

    def counted(path: Path) -> np.ndarray | str:
        try:
            labels = read_classes(path, classes, zero_is_none)
        except DataError as error:
            return str(error)
        return np.bincount(labels.ravel(), minlength=IGNORED + 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.ExitStack() as stack:
        found: Any = pool.map(counted, paths)
        stack.callback(found.close)  # Interrupted, it waits for none that has not begun.
        for counts in track(found, f"Counting the pixels of each class in {title}", len(paths)):
            if isinstance(counts, str):
                broken.append(counts)
            else:
                total += counts
    pixels, ignored = tuple(map(int, total[:classes])), int(total[IGNORED])
    images = len(paths) - len(broken)
    return Survey(title, class_names, zero_is_none, images, pixels, ignored, tuple(broken))

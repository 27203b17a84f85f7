"""Label images: the class of each pixel, and which classes a split has pixels of at all."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
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

    Args:
      path: of the label image.
      count: of the classes.
      zero_is_none: whether 0 is no class, and class c is c + 1; otherwise class c is c.

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
    """What is in some label images.

    Attributes:
      images: how many could be read.
      pixels: of each class.
      ignored: pixels of no class.
      broken: what is wrong with each of the others.
    """

    images: int
    pixels: tuple[int, ...]
    ignored: int
    broken: tuple[str, ...]

    def check(self, class_names: Sequence[str], none: str, title: str) -> None:
        """Refuse label images with pixels of one class alone, where there are several.

        A mask of 0 and 255 for the classes 0 and 1 is such: a model that never finds its object
        would be right at every pixel that counts.

        Args:
          class_names: in the order of the labels.
          none: the values of no class, in words, such as "255".
          title: what messages call the split.

        Raises:
          DataError: naming the classes that never occur, and how many pixels are ignored.
        """
        absent = self._absent(class_names)
        if len(class_names) < 2 or len(absent) < len(class_names) - 1 or self.broken:
            return
        there = [name for name in class_names if name not in absent]
        have = f"pixels of {there[0]} alone and none of" if there else "no pixels of"
        raise DataError(
            f"{title}: its {self.images:,} label images have {have} {listed(absent)}, so there is "
            f"nothing to learn or to measure{self._ignored(class_names, none) or '.'}"
        )

    def remarks(self, class_names: Sequence[str], none: str, title: str) -> Iterator[str]:
        """Sentences on classes without a pixel, pixels of no class and broken label images.

        The arguments are those of `check`.
        """
        if absent := self._absent(class_names):
            yield (
                f"{title}: {len(absent):,} of {len(class_names):,} classes have no pixel: "
                f"{listed(absent)}{self._ignored(class_names, none) or '.'}"
            )
        elif self.ignored:
            yield f"{title}{self._ignored(class_names, none).replace(';', ':', 1)}"
        if self.broken:
            yield (
                f"{title}: {len(self.broken):,} label images stop the run when they are met. "
                f"{self.broken[0]}"
            )

    def _absent(self, class_names: Sequence[str]) -> list[str]:
        return [name for name, count in zip(class_names, self.pixels, strict=True) if not count]

    def _ignored(self, class_names: Sequence[str], none: str) -> str:
        """The end of a sentence, empty where all pixels are of a class."""
        if not self.ignored:
            return ""
        share = 100 * self.ignored / (self.ignored + sum(self.pixels))
        said = f"; {self.ignored:,} pixels ({share:.1f}%) are {none} and do not count."
        absent = self._absent(class_names)
        if not absent or none != str(IGNORED):
            return said
        what = absent[0] if len(absent) == 1 else f"one of them, such as {absent[0]}"
        number = list(class_names).index(absent[0])
        return f"{said} If {IGNORED} means {what}, it must be written as {number}."


@functools.lru_cache(maxsize=8)  # A run may open its splits more than once.
def survey(
    paths: tuple[Path, ...],
    changed: tuple[tuple[int, int], ...],
    classes: int,
    zero_is_none: bool,
    title: str,
) -> Survey:
    """Count the pixels of label images, in threads and under a progress bar.

    Args:
      paths: of the label images.
      changed: sizes and times of the files; the same ones are counted once in a process.
      classes: how many there are.
      zero_is_none: as of `read_classes`.
      title: what the bar calls the split.
    """
    total, broken = np.zeros(IGNORED + 1, np.int64), []

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
    pixels = tuple(map(int, total[:classes]))
    return Survey(len(paths) - len(broken), pixels, int(total[IGNORED]), tuple(broken))

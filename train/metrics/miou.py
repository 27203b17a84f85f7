"""Mean intersection over union of a segmentation, as mmsegmentation counts it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.data.dense.transforms import IGNORED
from train.data.sources.classes import listed
from train.metrics.gather import from_all_processes


class Scores(NamedTuple):
    """Shares, 0 to 1.

    Attributes:
      iou: [C] float64, of each class, its pixels found and right over those found or there; NaN
        for a class that is neither.
      accuracy: [C] float64, of each class' pixels, those found; NaN for a class that is not there.
      mean_iou, mean_accuracy: over the classes that are not NaN.
      all_accuracy: pixels that are right.
    """

    iou: np.ndarray
    accuracy: np.ndarray
    mean_iou: float
    mean_accuracy: float
    all_accuracy: float


def confusion(labels: np.ndarray, found: np.ndarray, num_classes: int) -> np.ndarray:
    """How many pixels of each class were found to be of each.

    Args:
      labels: integers of any shape, 0 to C - 1, or 255 for pixels that do not count.
      found: of the same shape, 0 to C - 1.
      num_classes: C.

    Returns:
      [C,C] int64, labels by rows; the sum of several counts all their pixels.

    Raises:
      ValueError: the shapes differ, or a value is out of range.
    """
    if labels.shape != found.shape:
        raise ValueError(f"Labels have the shape {labels.shape}, what was found {found.shape}.")
    counted = labels != IGNORED
    rows, columns = labels[counted].astype(np.int64), found[counted].astype(np.int64)
    for what, values in (("label", rows), ("found class", columns)):
        wrong = values[(values < 0) | (values >= num_classes)]
        if wrong.size:
            raise ValueError(
                f"There is the {what} {wrong[0]}; the {num_classes} classes are 0 to "
                f"{num_classes - 1}."
            )
    flat = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def summed(matrix: np.ndarray) -> np.ndarray:
    """The sum of the confusion matrices, [C,C] int64, of all processes; all of them must call."""
    parts = from_all_processes(np.ascontiguousarray(matrix, np.int64).tobytes())
    return np.sum([np.frombuffer(part, np.int64) for part in parts], 0).reshape(matrix.shape)


def coverage(matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """Which classes the means of `scores` are over, for people."""
    there, found = matrix.sum(1) > 0, matrix.sum(0) > 0
    if there.all():
        return f"means over all {len(there):,} classes"
    absent = [name for name, has in zip(class_names, there, strict=True) if not has]
    means = f"means over {there.sum():,} of {len(there):,} classes, no pixel of {listed(absent)}"
    wrongly = [n for n, f, t in zip(class_names, found, there, strict=True) if f and not t]
    return means + (f"; mIoU has 0 for {listed(wrongly)}, which was found" if wrongly else "")


def scores(matrix: np.ndarray) -> Scores:
    """The scores of a confusion matrix, [C,C] int64, labels by rows.

    Raises:
      ValueError: no pixel was counted.
    """
    if not matrix.sum():
        raise ValueError("No pixel has a label, so there is nothing to score.")
    right, there, found = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        iou = right / (there + found - right)
        accuracy = right / there
    return Scores(
        iou,
        accuracy,
        float(np.nanmean(iou)),
        float(np.nanmean(accuracy)),
        float(right.sum() / there.sum()),
    )

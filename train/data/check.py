"""Whether a split has photos of all its classes, before hours go into training on it."""

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterator

from ssmjax.atomic import replacing
from ssmjax.terminal import console, track
from train.data.fetching.fetch import DataError
from train.data.sources.classes import listed
from train.data.sources.source import MadeUp, Split

# Beside the data set's own files: {title of the split: {label: photos}}.
COUNTS_FILE = "_class_counts.json"
_AT_ONCE = 256  # Photos of ImageNet-1k are 110 kB on average.


def check_classes(split: Split) -> None:
    """Refuse a split that lacks a class, or has labels without a class.

    The first call reads every example, which takes minutes for ImageNet-1k, under a progress bar.
    The counts are kept in the data set's folder, where that can be written, for the next call.
    A split with fewer photos than classes is taken for a trial, which a line says; the random
    examples of `tfds.testing.mock_data` may lack classes too.

    Raises:
        DataError: naming the classes or labels.
    """
    empty = _empty(split)
    if not empty:
        return
    lacks = f"{split.title} has no photos of {len(empty):,} of its {split.num_classes:,} classes"
    if len(split.source) < split.num_classes:
        console(stderr=True).print(f"{lacks}: good for a trial only")
        return
    raise DataError(f"{lacks}: {listed(empty)}; give a split with photos of every class.")


def remarks(split: Split) -> Iterator[str]:
    """A sentence for people on classes without a photo, which no score tells of.

    Raises: as `check_classes`, of labels without a class.
    """
    if empty := _empty(split):
        yield (
            f"{split.title} has no photos of {len(empty):,} of its {split.num_classes:,} classes, "
            f"of which scores say nothing: {listed(empty)}."
        )


def _empty(split: Split) -> list[str]:
    """Classes without a photo; none of random examples, which may lack some."""
    if isinstance(split.source, MadeUp):
        return []
    counts = _class_counts(split)
    return [name for label, name in enumerate(split.class_names) if not counts[label]]


@functools.lru_cache(maxsize=2)  # A run asks twice.
def _class_counts(split: Split) -> Counter[int]:
    """How many photos each label has; raises DataError for labels without a class."""
    counts = _counts(split)
    strange = {label: n for label, n in counts.items() if not 0 <= label < split.num_classes}
    if strange:
        found = [f"{label} ({n:,} photos)" for label, n in sorted(strange.items())]
        raise DataError(
            f"{split.title} has labels outside 0 to {split.num_classes - 1}, which are its classes:"
            f" {listed(found)}; give a split with labels, or prepare the data set again."
        )
    return counts


def _counts(split: Split) -> Counter[int]:
    """How many photos each label has, as kept by an earlier call or counted now."""
    kept = {}
    if split.folder:
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads((split.folder / COUNTS_FILE).read_text())
    counts = Counter({int(label): n for label, n in kept.get(split.title, {}).items()})
    if counts.total() == len(split.source):
        return counts
    counts = _count(split)
    if split.folder:
        kept[split.title] = counts
        with contextlib.suppress(OSError), replacing(split.folder / COUNTS_FILE) as path:
            path.write_text(json.dumps(kept))
    return counts


def _count(split: Split) -> Counter[int]:
    total, counts = len(split.source), Counter()
    title = f"Counting the photos of each class in {split.title}"
    for first in track(range(0, total, _AT_ONCE), title):
        keys = range(first, min(first + _AT_ONCE, total))
        counts.update(int(example["label"]) for example in split.source.__getitems__(keys))
    return counts

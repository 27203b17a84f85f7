"""Images per second that the host prepares for training, from the JPEG files of a folder."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ssmjax import command_line, terminal
from train.augment.config import AugmentConfig
from train.augment.recipe import Recipe, make_recipe
from train.data.pipeline import train_batches
from train.data.sources.source import Split
from train.data.sources.walk import files_of

BATCH_SIZE = 64
SIZE = (224, 224)
AUGMENTED = {
    "whole photo": AugmentConfig(),
    "random crop, flip": AugmentConfig(crop="random_resized", flip=0.5),
    "DeiT's": AugmentConfig(crop="random_resized", flip=0.5, randaugment="rand-m9-mstd0.5-inc1"),
}


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
      photos: folder of JPEG files; each is read over and over.
      workers: each number of worker processes in turn; 0 is the threads of this one.
      batches: how many, of 64 images of 224 x 224, are timed, after as many that are not.
    """

    photos: Path
    workers: tuple[int, ...] = (0, 1, 2)
    batches: int = 30


class Files:
    """The same few encoded photos as a source of very many."""

    def __init__(self, folder: Path):
        files = files_of(folder, (".jpg", ".jpeg")).files
        self._encoded = [(folder / file.name).read_bytes() for file in files]
        if not self._encoded:
            raise ValueError(f"There are no JPEG files in {folder}; name a folder of some.")

    def __len__(self) -> int:
        return 100_000

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        return [{"image": self._encoded[key % len(self._encoded)], "label": 0} for key in keys]


def main() -> None:
    """The command: measure, print a table."""
    options: BenchOptions = command_line.parse(BenchOptions, description=__doc__ or "")
    split = Split(Files(options.photos), ("photo",), title=str(options.photos))
    table = Table("images/s", *(f"workers {count}" for count in options.workers))
    for name, augment in AUGMENTED.items():
        recipe = make_recipe(augment, SIZE, mean=(0.5, 0.5, 0.5))
        speeds = [speed(split, recipe, options, workers) for workers in options.workers]
        table.add_row(name, *(f"{value:.0f}" for value in speeds))
    terminal.console().print(table)


def speed(split: Split, recipe: Recipe, options: BenchOptions, workers: int) -> float:
    """Images per second of one recipe, with everything started and warm."""
    batches = train_batches(split, recipe=recipe, batch_size=BATCH_SIZE, seed=0, workers=workers)
    times = [time.perf_counter() for _ in itertools.islice(batches, 2 * options.batches)]
    return options.batches * BATCH_SIZE / (times[-1] - times[options.batches - 1])


if __name__ == "__main__":
    command_line.run(main)

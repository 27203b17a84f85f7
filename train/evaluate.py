"""How well a run's weights do: `--checkpoint DIR` is the workdir of `train.finetune`."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kernels.host_memory import keep_freed_memory
from ssmjax import command_line, imagenet, terminal
from ssmjax.atomic import replacing
from ssmjax.run_weights import weight_file
from train import cli
from train.config import Config
from train.hosts.devices import make_mesh, start_distributed
from train.hosts.options import DistributedOptions
from train.hosts.runtime import Runtime, bars
from train.reports.speed import images_per_second
from train.tasks.task import open_task, tell

SHOWN = 10  # Confusions that are printed.


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and on what.

    Attributes:
      config: a Python file that defines `config = Config(...)`, from `configs/`.
      checkpoint: the workdir of a run, whose last weights are taken, or those of its best epoch
        while it has not ended; or a safetensors file.
      confusion: CSV file to write, of how many photos (in segmentation, pixels) of each class were
        taken for each other.
      workers: processes that read photos; 0 does it in threads of this one.
      distributed: for several processes.
    """

    config: Path
    checkpoint: Path
    confusion: Path | None = None
    workers: int = 0
    distributed: DistributedOptions = DistributedOptions()


def main() -> None:
    """The command: load, measure, print one line."""
    keep_freed_memory()
    config, options = cli.parse(Config, EvaluateOptions, __doc__ or "")
    if options.confusion:
        command_line.check_out("--confusion", options.confusion)
    start_distributed(options.distributed)
    runtime, table = Runtime(make_mesh(), bars(), options.workers), options.confusion is not None
    task, weights = open_task(config), weight_file(options.checkpoint, runtime.say)
    model, metadata = task.load(weights)
    split = task.eval_split(metadata.class_names)
    outputs, classes = model.config.num_classes, len(split.class_names)
    if outputs != classes:
        raise ValueError(
            f"{weights} tells {outputs} classes apart; the data have {classes}, so give other "
            "weights or data."
        )
    with runtime.progress:
        tell(task, [split], runtime)
        scores = task.score(model, split, metadata, runtime, "evaluating", confusion=table)
    if not runtime.first:
        return
    (speed,) = images_per_second(task, [model])
    flops = task.flops(model)["total"]
    print(f"{scores}  {speed:.0f} images/s  {flops / 1e6:.1f} M multiply-adds")
    if options.confusion and scores.confusion is not None:
        names = imagenet.readable(split.class_names)
        write_confusion(scores.confusion, names, options.confusion)
        print_confusions(scores.confusion, names, terminal.console())


def write_confusion(table: np.ndarray, names: tuple[str, ...], path: Path) -> None:
    """Write counts [true,taken for] as CSV with class names, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["true class", *names])
        writer.writerows([name, *row] for name, row in zip(names, table.tolist(), strict=True))


def print_confusions(table: np.ndarray, names: tuple[str, ...], console: Console) -> None:
    """Print the most frequent confusions, by the share of the true class that they take."""
    wrong = table * ~np.eye(len(table), dtype=bool)
    printed = Table(box=box.SIMPLE_HEAD)
    for heading in ("true class", "taken for"):
        printed.add_column(heading, overflow="fold")
    for heading in ("count", "% of the class"):
        printed.add_column(heading, justify="right")
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:SHOWN]:
        true, taken = np.unravel_index(flat, wrong.shape)
        count = wrong[true, taken]
        if count:
            share = 100 * count / table[true].sum()
            words = [Text(terminal.printable(names[label])) for label in (true, taken)]
            printed.add_row(*words, f"{count:,}", f"{share:.1f}")
    console.print(printed)


if __name__ == "__main__":
    command_line.run(main)

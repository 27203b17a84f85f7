"""Compare ways to prune: accuracy before and after one training, FLOPs, speed, memory.

The same command, given again, goes on where it was stopped. `python -m train.compare --table
DIR/results.csv` makes table and plots again from what was measured, and measures nothing.
"""

import dataclasses
import shlex
import sys
from pathlib import Path

from kernels.host_memory import keep_freed_memory
from ssmjax import command_line, terminal
from train import cli
from train.compare.config import Comparison
from train.compare.report import report
from train.compare.run import compare


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Where a comparison lives.

    Attributes:
      config: a Python file that defines `comparison = Comparison(...)`, from `configs/`.
      workdir: folder for CSV, table, plots and logs.
    """

    config: Path
    workdir: Path


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """What to make a table of.

    Attributes:
      table: a CSV that this command wrote; the table and the plots go beside it.
    """

    table: Path


def main() -> None:
    """The command: compare, or make the table of a comparison again."""
    if any(argument.split("=")[0] == "--table" for argument in sys.argv[1:]):
        options = command_line.parse(TableOptions, description=__doc__ or "")
        report(options.table, terminal.console(stderr=True))
        return
    keep_freed_memory()
    comparison, options = cli.parse(Comparison, CompareOptions, __doc__ or "")
    command = terminal.printable(shlex.join(["python", "-m", "train.compare", *sys.argv[1:]]))
    compare(comparison, options.workdir, command)


if __name__ == "__main__":
    command_line.run(main)

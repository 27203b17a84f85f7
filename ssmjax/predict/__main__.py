"""Say what photos show, and draw it, or which patches the model kept.

python -m ssmjax.predict PHOTO ... --weights FILE [--top 5] [--picture OUT.png]
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich import box
from rich.table import Table

from ssmjax import command_line, registry, terminal
from ssmjax.models.backbone import Backbone
from ssmjax.photos import write_png
from ssmjax.predict import classes
from ssmjax.predict.options import Answer, Options
from ssmjax.run_weights import weight_file
from ssmjax.weights import read_metadata


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: parse, predict. Raises ValueError or OSError, one sentence for people."""
    options = command_line.parse(Options, arguments)
    if options.top < 1:
        raise ValueError(f"--top is {options.top}; it must be at least 1.")
    if options.picture:
        command_line.check_png("--picture", options.picture)
    weights = weight_file(options.weights, partial(print, file=sys.stderr))
    metadata = read_metadata(weights)
    prune = command_line.pruning(
        options.after_blocks, options.keep_ratio, registry.entry(metadata.model).prunes
    )
    model = registry.create_model(options.model, weights=weights, prune=prune or "stored")
    if isinstance(model, Backbone):
        answer = classes.predict(model, metadata, options)
    else:
        # Imported late: whoever runs a classifier loads nothing of the dense tasks.
        from ssmjax.predict import dense

        answer = dense.predict(model, metadata, options)
    _print_table(options.images, answer)
    if options.picture and answer.picture:
        write_png(answer.picture, options.picture)


def _print_table(paths: Sequence[Path], answer: Answer) -> None:
    what, share = answer.headings
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("image", overflow="fold")
    table.add_column(what, overflow="fold")
    table.add_column(share, justify="right", no_wrap=True)
    for path, rows in zip(paths, answer.rows, strict=True):
        for rank, row in enumerate(rows):
            table.add_row(terminal.printable(str(path)) if rank == 0 else "", *row)
        table.add_section()
    terminal.console().print(table)


if __name__ == "__main__":
    command_line.run(main)

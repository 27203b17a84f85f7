"""Say what photos show, and draw it, or which patches the model kept.

python -m ssmjax.predict PHOTO ... --weights FILE [--top 5] [--picture OUT.png]
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from rich import box
from rich.table import Table

from ssmjax import command_line, imagenet, terminal
from ssmjax.analysis.pictures import kept_tokens_picture
from ssmjax.photos import check_png, in_batches, read_images, write_png
from ssmjax.registry import create_model, list_models
from ssmjax.run_weights import weight_file
from ssmjax.weights import read_metadata

BATCH = 32  # Photos that go through the model at once.


@dataclasses.dataclass(frozen=True)
class Options:
    """Say what photos show, and draw which patches the model kept."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Photos of any usual format and size."""
    weights: Path
    """Weight file, as `train.finetune` and `ssmjax.convert` write them, or the workdir of a run."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the model, to be sure; the weight file knows it."""
    top: int = 5
    """How many classes or objects to print for each photo."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="OUT.png")] = None
    """PNG to write: each photo, what was found on it, and per pruning stage the patches kept."""
    after_blocks: Annotated[tuple[int, ...], tyro.conf.arg(metavar="BLOCK ...")] = ()
    """Prune after these blocks, counted from 1, instead of as the weight file says."""
    keep_ratio: Annotated[float | None, tyro.conf.arg(metavar="RATIO")] = None
    """Share of the patches kept at each of them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: parse, predict. Raises ValueError or OSError, one sentence for people."""
    _predict(command_line.parse(Options, arguments))


def _predict(options: Options) -> None:
    if options.top < 1:
        raise ValueError(f"--top is {options.top}; it must be at least 1.")
    if options.picture:
        check_png("--picture", options.picture)
    options = dataclasses.replace(options, weights=weight_file(options.weights, _tell))
    metadata = read_metadata(options.weights)
    if metadata.model not in list_models():
        # Here, not above: classifiers need nothing of it.
        from ssmjax.dense import predict

        predict.predict(options, metadata, terminal.console())
        return
    prune = command_line.pruning(options.after_blocks, options.keep_ratio) or "stored"
    model = create_model(options.model, weights=options.weights, prune=prune)
    config = model.config
    if options.picture and config.prune is None:
        raise ValueError(
            "--picture shows the patches kept, and this model is dense; say where to prune, as "
            "--after-blocks 2 3 --keep-ratio 0.7."
        )

    classify = functools.partial(model, key=jax.random.key(0), return_positions=True)
    images = read_images(options.images, config, metadata)
    logits, stages = in_batches(classify, images, metadata, BATCH)
    probabilities = np.asarray(jax.nn.softmax(logits))
    names = tuple(map(terminal.printable, imagenet.readable(metadata.class_names)))
    if len(names) != config.num_classes:
        names = tuple(f"class {number}" for number in range(config.num_classes))
    _print_table(options.images, probabilities, names, options.top)
    if options.picture:
        captions = [
            f"{terminal.printable(path.name)}: {names[p.argmax()]} ({100 * p.max():.0f}%)"
            for path, p in zip(options.images, probabilities, strict=True)
        ]
        write_png(kept_tokens_picture(images, stages, config, captions), options.picture)


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _print_table(
    paths: Sequence[Path], probabilities: np.ndarray, names: tuple[str, ...], top: int
) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for path, p in zip(paths, probabilities, strict=True):
        for rank, index in enumerate(np.argsort(-p, kind="stable")[:top]):
            name = terminal.printable(str(path)) if rank == 0 else ""
            table.add_row(name, names[index], f"{100 * p[index]:.1f}%")
        table.add_section()
    terminal.console().print(table)


if __name__ == "__main__":
    command_line.run(main)

"""Draw which patches a pruned model keeps, or where it looks before and after pruning.

python -m ssmjax.visualise PHOTO ... --weights FILE --kind tokens|attention [--out OUT.png]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

from ssmjax import command_line
from ssmjax.analysis.attention_maps import attention_maps, cosine_similarity
from ssmjax.analysis.heatmaps import Column, attention_picture
from ssmjax.analysis.pictures import kept_cells, kept_tokens_picture
from ssmjax.models.backbone import Backbone
from ssmjax.photos import in_batches, read_images, write_png
from ssmjax.preprocess import Preprocessing
from ssmjax.terminal import printable

BATCH = 8  # Photos that go through the models at once.
PRUNED = ("pruned, aligned", "pruned, not aligned")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.ClassifierOptions):
    """Draw which patches a pruned model keeps, or where it looks before and after pruning."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Photos of any usual format and size."""
    kind: Literal["tokens", "attention"]
    """What to draw: the patches kept, or heat maps of hidden attention, compared in a table."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="OUT.png")] = None
    """PNG to write; without it, attention prints its table only."""
    variant: Literal["raw", "rollout", "attribution"] = "raw"
    """Attention of one block, passed on through all, or weighted by the dense model's class."""
    layer: Annotated[int | None, tyro.conf.arg(metavar="BLOCK")] = None
    """The block of the raw variant, counted from 1; the last unless given."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: parse, draw. Raises ValueError or OSError, one sentence for people."""
    options = command_line.parse(Options, arguments)
    if options.out is not None:
        command_line.check_png("--out", options.out)
    elif options.kind == "tokens":
        raise ValueError("--kind tokens draws a picture; name the PNG to write with --out.")
    model, metadata = options.create()
    if model.config.prune is None:
        raise ValueError(
            "This model is dense; say where to prune, as --after-blocks 2 3 --keep-ratio 0.7 or "
            "--prune paper."
        )
    config, names = model.config, [printable(path.name) for path in options.images]
    preprocessing = metadata.preprocessing
    images = read_images(options.images, config, preprocessing.crop_pct)
    if options.kind == "tokens":
        run = partial(model, key=jax.random.key(0), return_positions=True)
        _, stages = in_batches(run, images, preprocessing, BATCH)
        draw = partial(kept_tokens_picture, images, stages, config, names)
    else:
        columns = _attention(model, images, preprocessing, options)
        cosines = [cosine_similarity(columns[0].maps, c.maps, c.kept) for c in columns[1:]]
        captions = [
            f"{name}: cosine {aligned:.3f} aligned, {without:.3f} not"
            for name, aligned, without in zip(names, *cosines, strict=True)
        ]
        draw = partial(attention_picture, images, columns, config, captions)
        _print_table(names, cosines)
    if options.out is not None:
        write_png(draw(), options.out)


def _attention(
    model: Backbone, images: np.ndarray, preprocessing: Preprocessing, options: Options
) -> list[Column]:
    """The maps of the dense model, and of the pruned one with and without alignment."""
    prune: Any = model.config.prune
    aligned = "previous" if prune.alignment == "none" else prune.alignment
    dense, *others = (
        model.with_prune(prune)
        for prune in (None, *(dataclasses.replace(prune, alignment=a) for a in (aligned, "none")))
    )

    def look(images):
        classes = dense(images).argmax(axis=1)
        return [
            attention_maps(model, images, options.variant, layer=options.layer, classes=classes)
            for model in (dense, *others)
        ]

    columns = []
    found = in_batches(look, images, preprocessing, BATCH)
    for title, (maps, positions) in zip(("dense", *PRUNED), found, strict=True):
        kept = np.stack([kept_cells(row, model.config) for row in positions])
        columns.append(Column(title, maps, kept))
    return columns


def _print_table(names: Sequence[str], cosines: Sequence[np.ndarray]) -> None:
    rows = [*zip(names, *cosines, strict=True), (f"mean of {len(names)}", *map(np.mean, cosines))]
    print(f"| cosine with dense | {' | '.join(PRUNED)} |\n| --- | --: | --: |")
    for name, *values in rows:
        cells = [name.replace("|", r"\|"), *(f"{value:.3f}" for value in values)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    command_line.run(main)

"""Draw which patches a pruned model keeps, or where it looks before and after pruning.

python -m ssmjax.visualise PHOTO ... --weights FILE --kind tokens|attention [--out OUT.png]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from ssmjax import command_line, imagenet
from ssmjax.analysis.attention_maps import attention_maps, cosine_similarity
from ssmjax.analysis.heatmaps import Column, attention_picture
from ssmjax.analysis.pictures import kept_cells, kept_tokens_picture
from ssmjax.models.backbone import Backbone
from ssmjax.photos import check_png, in_batches, read_images, write_png
from ssmjax.registry import create_model
from ssmjax.weights import Metadata, read_metadata

BATCH = 8  # Photos that go through the models at once.
PRUNED = ("pruned, aligned", "pruned, not aligned")


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw which patches a pruned model keeps, or where it looks before and after pruning."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Photos of any usual format and size."""
    kind: Literal["tokens", "attention"]
    """What to draw: the patches kept, stage by stage; or heat maps of hidden attention, dense and
    pruned with and without alignment, whose cosine similarities are printed as a table."""
    weights: Path | None = None
    """Weight file, as `train.finetune` and `ssmjax.convert` write them."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the model; with fresh parameters, unless a weight file is given."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="OUT.png")] = None
    """PNG to write; attention can do without, and print its table only."""
    prune: Literal["stored", "paper"] = "stored"
    """Prune as the weight file says, or as the paper does."""
    after_blocks: Annotated[tuple[int, ...], tyro.conf.arg(metavar="BLOCK ...")] = ()
    """Prune after these blocks instead, counted from 1."""
    keep_ratio: Annotated[float | None, tyro.conf.arg(metavar="RATIO")] = None
    """Share of the patches kept at each of them."""
    variant: Literal["raw", "rollout", "attribution"] = "raw"
    """Which attention: of one block, passed on through all blocks, or weighted by its share in the
    logit of the class that the dense model says."""
    layer: Annotated[int | None, tyro.conf.arg(metavar="BLOCK")] = None
    """The block of the raw variant, counted from 1; the last unless given."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: parse, draw. Raises ValueError or OSError, one sentence for people."""
    _visualise(command_line.parse(Options, arguments))


def _visualise(options: Options) -> None:
    if options.weights is not None:
        metadata = read_metadata(options.weights)
    elif options.model is not None:
        metadata = Metadata("", {}, (), *imagenet.photos(options.model))
    else:
        raise ValueError("No model was given; name a weight file with --weights.")
    if options.out is not None:
        check_png("--out", options.out)
    elif options.kind == "tokens":
        raise ValueError("--kind tokens draws a picture; name the PNG to write with --out.")
    prune = command_line.pruning(options.after_blocks, options.keep_ratio) or options.prune
    model = create_model(options.model, weights=options.weights, prune=prune)
    if model.config.prune is None:
        raise ValueError(
            "This model is dense; say where to prune, as --after-blocks 2 3 --keep-ratio 0.7 or "
            "--prune paper."
        )
    images = read_images(options.images, model.config, metadata)
    draw = _tokens if options.kind == "tokens" else _attention
    draw(model, images, metadata, options)


def _tokens(model: Backbone, images: np.ndarray, metadata: Metadata, options: Options) -> None:
    run = partial(model, key=jax.random.key(0), return_positions=True)
    _, stages = in_batches(run, images, metadata, BATCH)
    names = [path.name for path in options.images]
    assert options.out is not None
    write_png(kept_tokens_picture(images, stages, model.config, names), options.out)


def _attention(model: Backbone, images: np.ndarray, metadata: Metadata, options: Options) -> None:
    """Print the table of similarities and, where asked for, write the picture."""
    config, names = model.config, [path.name for path in options.images]
    assert config.prune is not None
    aligned = "previous" if config.prune.alignment == "none" else config.prune.alignment
    dense = model.with_prune(None)
    models = [dense]
    for alignment in (aligned, "none"):
        models.append(model.with_prune(dataclasses.replace(config.prune, alignment=alignment)))

    def look(images):
        classes = dense(images).argmax(axis=1)
        return [
            attention_maps(model, images, options.variant, layer=options.layer, classes=classes)
            for model in models
        ]

    columns = []
    for title, (maps, positions) in zip(
        ("dense", *PRUNED), in_batches(look, images, metadata, BATCH), strict=True
    ):
        kept = np.stack([kept_cells(row, config) for row in positions])
        columns.append(Column(title, maps, kept))
    cosines = [cosine_similarity(columns[0].maps, c.maps, c.kept) for c in columns[1:]]
    if options.out is not None:
        captions = [
            f"{name}: cosine {with_gaps:.3f} aligned, {without:.3f} not"
            for name, with_gaps, without in zip(names, *cosines, strict=True)
        ]
        write_png(attention_picture(images, columns, config, captions), options.out)
    _print_table(names, cosines)


def _print_table(names: Sequence[str], cosines: Sequence[np.ndarray]) -> None:
    rows = [*zip(names, *cosines, strict=True), (f"mean of {len(names)}", *map(np.mean, cosines))]
    print(f"| cosine with dense | {' | '.join(PRUNED)} |\n| --- | --: | --: |")
    for name, *values in rows:
        cells = [name.replace("|", r"\|"), *(f"{value:.3f}" for value in values)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    command_line.run(main)

"""What a finished run leaves to look at: the table, the curve and the picture of kept tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from ssmjax import Backbone
from ssmjax.analysis.flops import count_parameters, flops
from ssmjax.analysis.pictures import kept_tokens_picture
from ssmjax.weights import Metadata
from train.data.pipeline import eval_batches
from train.data.source import Split
from train.log import read_log
from train.measure import images_per_second
from train.report import ReportError, Row, print_table, write_curve, write_table
from train.tasks.classify import normalise

Result = tuple[str, str, Backbone, float]  # Name, regime (see `train.report.Row`), model, accuracy.


def summarise(
    results: Sequence[Result],
    metadata: Metadata,
    split: Split,
    workdir: Path,
    *,
    batch_size: int,
    pictures: int,
    console: Console,
) -> None:
    """Measure speeds, print the table, and write everything into `workdir`.

    Args:
      results: what was measured, the last one the model that was trained.
      metadata: class names and normalisation.
      split: where the pictured photos come from: its first ones.
      workdir: gets `results.{json,csv,md}`, `curve.png` and, for a pruned model, `kept_tokens.png`.
      batch_size: images a step in the measurement of speed.
      pictures: how many photos to picture.
      console: where the table and the places of the files are told.
    """
    models = {model.config: model for _, _, model, _ in results}
    speeds = images_per_second(list(models.values()), batch_size=batch_size)
    by_config = dict(zip(models, speeds, strict=True))
    rows = table_rows(results, by_config)
    print_table(rows, console)
    write_table(rows, workdir)
    try:
        write_curve(read_log(workdir / "log.jsonl"), workdir / "curve.png")
    except ReportError as error:
        console.print(str(error))
    trained = results[-1][2]
    if trained.config.prune is not None:
        picture_of(trained, metadata, split, pictures).save(workdir / "kept_tokens.png")
    console.print(f"Table, weights, log and pictures are in {workdir}/")


def table_rows(results: Sequence[Result], speeds: Mapping) -> list[Row]:
    """The rows of the table; speed-ups are over the dense model, where there is one."""
    dense = next((speeds[m.config] for _, regime, m, _ in results if regime == "dense"), None)
    return [
        Row(
            name=name,
            regime=regime,
            tokens=model.config.image_tokens,
            accuracy=accuracy,
            flops=flops(model).total,
            parameters=count_parameters(model),
            images_per_second=speeds[model.config],
            speedup=speeds[model.config] / dense if dense else None,
        )
        for name, regime, model, accuracy in results
    ]


def picture_of(model: Backbone, metadata: Metadata, split: Split, photos: int):
    """The first photos of a split, stage by stage, with true and predicted class."""
    size = model.config.image_shape[:2]
    batch = next(eval_batches(split, batch_size=photos, size=size, crop_pct=metadata.crop_pct))
    pixels, labels = batch["image"][batch["mask"]], batch["label"][batch["mask"]]
    given = normalise(pixels, metadata.mean, metadata.std)
    logits, stages = model(given, key=jax.random.key(0), return_positions=True)
    names = metadata.class_names
    captions = [
        f"{names[label]}" if label == guess else f"{names[label]}, taken for {names[guess]}"
        for label, guess in zip(labels, np.argmax(logits, axis=-1), strict=True)
    ]
    return kept_tokens_picture(pixels, [np.asarray(s) for s in stages], model.config, captions)

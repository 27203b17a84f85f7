"""The models that a run is compared with: its weights as given, and pruned without training."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ssmjax.models.vit import ViTConfig
from train.config import Config
from train.kept import Kept
from train.metrics.gather import from_all_processes
from train.runtime import Runtime
from train.tasks.task import Measure, Model, Split, Task, open_task


class Untrained(NamedTuple):
    """One of them.

    Attributes:
      name: for tables.
      regime: see `train.report.Row`.
      model: itself.
    """

    name: str
    regime: str
    model: Model

    @property
    def title(self) -> str:
        """What tells it from the others."""
        return self.name if self.name == self.regime else f"{self.name}, {self.regime}"


def untrained(model: Model, config: Config) -> list[Untrained]:
    """What to measure before training: nothing when from scratch."""
    if config.model.weights is None:
        return []
    models = [Untrained("dense", "dense", model)]
    if config.prune is not None:
        change = dataclasses.replace
        variants = {"pruned": config.prune}
        if not isinstance(model.config, ViTConfig):  # Which has no hidden state to align.
            variants["pruned, no alignment"] = change(config.prune, alignment="none")
        # Fusing takes scores.
        reduction = "drop" if config.prune.reduction == "fuse" else config.prune.reduction
        for name, importance in (("pruned at random", "random"), ("pruned evenly", "uniform")):
            variants[name] = change(config.prune, importance=importance, reduction=reduction)
        task = open_task(config)
        models += [
            Untrained(name, "zero-shot", task.with_prune(model, prune))
            for name, prune in variants.items()
        ]
    return models


def scores_of(
    model: Model,
    title: str,
    task: Task,
    split: Split,
    measure: Measure,
    kept: Kept,
    runtime: Runtime,
) -> Mapping[str, float]:
    """Every metric of an untrained model, measured now or by an earlier start of the same run.

    Args:
      model: as the config of the task has it, but perhaps pruned otherwise.
      title: that no other model of the run has.
      task: of the run.
      split: what `measure` measures on.
      measure: gives the scores of a model.
      kept: what earlier starts have measured.
      runtime: where people are told.
    """
    depends = _given(task.config, split), model.config
    found = kept.get(title, depends)
    if found is None:
        found = dict(measure(model, title).metrics)
        kept.put(title, depends, found)
    else:
        runtime.say(f"{title}: {100 * found[task.metrics[0]]:.2f}%, measured at an earlier start")
    return found


def _given(config: Config, split: Split) -> str:
    """A digest of what the scores follow from, but for the model's own config."""
    files = [str(path) for path in (config.model.weights, config.model.classifier) if path]
    weights = list(map(_content, files))
    data = dataclasses.asdict(config.data) | {"augment": None}
    facts = weights, config.model.new_head, data, config.seed, config.eval_batch_size
    found = hashlib.sha256(repr((facts, split.identity)).encode()).hexdigest()
    # That of the first process, as files of the others' hosts may have other dates.
    return from_all_processes(found.encode())[0].decode()


def _content(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

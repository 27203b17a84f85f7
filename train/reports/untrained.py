"""The models that a run is compared with: the dense one, and pruned ones without training."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ssmjax.models.vit import ViTConfig
from train.data.fetching.fetch import sha256_of
from train.engine.session import Job
from train.engine.task import Model, Split, Task
from train.metrics.gather import from_all_processes
from train.tasks.config import TaskConfig


class Untrained(NamedTuple):
    """A model that is measured before the training, with its name and regime in tables."""

    name: str
    regime: str
    model: Model

    @property
    def title(self) -> str:
        """A name that no other model of the run has."""
        return self.name if self.name == self.regime else f"{self.name}, {self.regime}"


def untrained(task: Task, model: Model) -> list[Untrained]:
    """What to measure before training `model`, the dense one: nothing when from scratch."""
    config = task.config
    if config.model.weights is None:
        return []
    models = [Untrained("dense", "dense", model)]
    if config.prune is not None:
        change = dataclasses.replace
        variants = {"pruned": config.prune}
        if not isinstance(model.config, ViTConfig):  # A ViT has no hidden state to align.
            variants["pruned, no alignment"] = change(config.prune, alignment="none")
        # Tokens are fused by their scores, which chance and even spacing do not have.
        reduction = "drop" if config.prune.reduction == "fuse" else config.prune.reduction
        for name, importance in (("pruned at random", "random"), ("pruned evenly", "uniform")):
            variants[name] = change(config.prune, importance=importance, reduction=reduction)
        models += [
            Untrained(name, "zero-shot", task.with_prune(model, prune))
            for name, prune in variants.items()
        ]
    return models


def scores_of(job: Job, model: Model, title: str) -> Mapping[str, float]:
    """Every metric of an untrained model, measured now or by an earlier start of the same job.

    The model is as the job's config has it, but perhaps pruned otherwise; the title is its alone.
    """
    depends = _digest(job.task.config, job.eval_split), model.config
    found = job.kept.get(title, depends)
    if found is None:
        found = job.measure(model, title)
        job.kept.put(title, depends, found)
    else:
        score = found[job.task.metrics[0]]
        job.runtime.say(f"{title}: {100 * score:.2f}%, measured at an earlier start")
    return found


def _digest(config: TaskConfig, split: Split) -> str:
    """A digest of all that the scores follow from, but for the model's own config."""
    files = config.model.weights, config.model.classifier
    weights = [sha256_of(Path(file)) for file in files if file]
    data = dataclasses.asdict(config.data) | {"augment": None}
    facts = weights, config.model.new_head, data, config.seed, config.eval_batch_size
    found = hashlib.sha256(repr((facts, split.identity)).encode()).hexdigest()
    # All processes take that of the first one: files of the other hosts may have other dates.
    return from_all_processes(found.encode())[0].decode()

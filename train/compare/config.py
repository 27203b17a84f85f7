"""What a comparison is made of: models, the ways to prune them, and one training for all."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import tyro

from ssmjax import PruneConfig
from train.config import Config, DataConfig, ModelConfig, OptimConfig
from train.data.dense.config import DetectionData, SegmentationData
from train.hosts.fields import AT_LEAST_1, check, expand, path_field
from train.tasks.task import open_task


class Key(NamedTuple):
    """What tells the entries of a comparison apart.

    Attributes:
      backbone: its label, such as "Vim-S".
      method: its label, such as "EViT way".
      after_blocks: 1-based blocks after which it prunes, as "5 10 15"; empty for a dense model.
      keep_ratio: None for a dense model.
    """

    backbone: str
    method: str
    after_blocks: str
    keep_ratio: float | None

    @property
    def kept(self) -> str:
        """Where and how much it keeps, as "0.8 after 5, 10, 15"; empty for a dense model."""
        blocks = self.after_blocks.replace(" ", ", ")
        return f"{self.keep_ratio} after {blocks}" if blocks else ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.backbone, self.method, self.kept)))


@dataclasses.dataclass(frozen=True)
class Published:
    """What a paper prints for an entry; None where it says nothing.

    Attributes:
      score: percent, such as top-1: by the task's main metric.
      gflops: billions of multiply-adds, by the paper's count.
      speedup: throughput over the dense model's.
    """

    score: float | None = None
    gflops: float | None = None
    speedup: float | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes:
      backbone: which of `Comparison.models`.
      method: the label of what is done to it.
      prune: what is done; None is the dense model that the backbone's others stand beside.
      published: the paper's numbers.
    """

    backbone: str
    method: str
    prune: PruneConfig | None = None
    published: Published = Published()

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        if self.prune is None:
            return Key(self.backbone, self.method, "", None)
        blocks = " ".join(map(str, self.prune.after_blocks))
        return Key(self.backbone, self.method, blocks, self.prune.keep_ratio)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Entries, and what is the same for all of them.

    Where a model's head is fresh its dense entry is trained too, as those that prune are; otherwise
    the dense model is measured as it is given.

    Attributes:
      models: dense models by the label of their backbone.
      entries: what to compare, one of each backbone dense.
      measure: `accuracy`, every metric of the task, needs photos, and of classifiers weights;
        `speed`, which comes with memory, needs neither.
      seeds: each entry that is trained is trained once with each, which a fresh head is of too.
      weights: folder of NAME.safetensors for each model's NAME, for models without weights of
        their own.
      data: which photos; they tell the task.
      optim: the training.
      eval_batch_size: photos a step in evaluation and in measuring speed and memory.
      evaluate_every: epochs between evaluations; the end is evaluated in any case.
      checkpoint_every: steps between checkpoints.
    """

    models: tyro.conf.Suppress[Mapping[str, ModelConfig]] = dataclasses.field(default_factory=dict)
    entries: tyro.conf.Suppress[tuple[Entry, ...]] = ()
    measure: tuple[Literal["accuracy", "speed"], ...] = ("accuracy", "speed")
    seeds: tuple[int, ...] = (0,)
    weights: str | None = path_field(None)
    data: DataConfig | DetectionData | SegmentationData = DataConfig()
    optim: OptimConfig = OptimConfig()
    eval_batch_size: int = 200
    evaluate_every: int = 1
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        expand(self)
        check(self, "", AT_LEAST_1, "eval_batch_size")
        for field in ("measure", "seeds"):
            values = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{field} is {values}; give at least one, and none twice.")
        keys = [entry.key for entry in self.entries]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f'There are two entries "{key}"; give each its own method label.')
            if key.backbone not in self.models:
                raise ValueError(
                    f'The entry "{key}" is of no model; choose one of {", ".join(self.models)}.'
                )
        for backbone in self.models:
            dense = [entry for entry in self.of(backbone) if entry.prune is None]
            if len(dense) != 1:
                raise ValueError(
                    f"{backbone} has {len(dense)} entries without prune; give one, the dense "
                    "model that the others stand beside."
                )
        for entry in self.entries:
            open_task(self.inference_config(entry))
        if "accuracy" in self.measure:
            for entry, seed in self.runs:
                open_task(self.config(entry, seed))

    def of(self, backbone: str) -> list[Entry]:
        """The entries of one backbone."""
        return [entry for entry in self.entries if entry.backbone == backbone]

    @property
    def runs(self) -> list[tuple[Entry, int]]:
        """(entry, seed) of every measurement of accuracy, by backbone; given models need one."""
        return [
            (entry, seed)
            for backbone in self.models
            for entry in self.of(backbone)
            for seed in (self.seeds if self.trains(entry) else self.seeds[:1])
        ]

    def model(self, backbone: str) -> ModelConfig:
        """The dense model of a backbone, with its weights where it has some."""
        model = self.models[backbone]
        if model.weights is None and self.weights is not None:
            return dataclasses.replace(model, weights=f"{self.weights}/{model.name}.safetensors")
        return model

    def fresh(self, backbone: str) -> bool:
        """Whether a backbone's model has still to learn to tell anything, with or without pruning.

        Raises:
          ValueError: a classifier without weights.
        """
        model = self.model(backbone)
        if model.weights is None and isinstance(self.data, DataConfig):
            raise ValueError(
                f"{backbone} has no weights, so it has no accuracy to measure; give "
                f"--weights DIR with {model.name}.safetensors in it, or --measure speed."
            )
        return model.weights is None or model.new_head

    def trains(self, entry: Entry) -> bool:
        """Whether an entry is trained; raises ValueError as `fresh`."""
        return entry.prune is not None or self.fresh(entry.backbone)

    def inference_config(self, entry: Entry) -> Config:
        """What an entry's speed is measured by."""
        return Config(
            model=self.model(entry.backbone),
            data=self.data,
            prune=entry.prune,
            eval_batch_size=self.eval_batch_size,
        )

    def config(self, entry: Entry, seed: int) -> Config:
        """The run that trains an entry. Raises ValueError where a field of it is refused."""
        return dataclasses.replace(
            self.inference_config(entry),
            optim=self.optim,
            seed=seed,
            evaluate_every=self.evaluate_every,
            checkpoint_every=self.checkpoint_every,
        )

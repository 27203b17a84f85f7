"""What the engine, reports and commands know of a task; those in `train.tasks` are such."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import optax
from PIL import Image

from ssmjax import PruneConfig
from ssmjax.weights import Metadata
from train.data.prefetch import Batch
from train.data.unreadable import Named
from train.engine.step import Loss
from train.hosts.runtime import Runtime

Model = Any  # A task's own kind, such as `ssmjax.Backbone`; an `nnx.Module` with a `config`.


class Split(Named, Protocol):
    """Examples to learn from or to measure on: all that is known of them outside the task."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        ...

    @property
    def identity(self) -> str:
        """What changes when its examples do."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """Sentences for people on what was left out, all known when it was opened."""
        ...


class Scores(Protocol):
    """How well a model does on a split; as text, for people."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Values by the names in `Task.metrics`, in the same order."""
        ...

    @property
    def confusion(self) -> np.ndarray | None:
        """[classes,classes] int, examples by true class and found class; None if not asked for."""
        ...


class Task(Protocol):
    """Data, model, loss, metrics and pictures of one config.

    Attributes:
      heading: what tables call the first metric, in per cent.
      picture_name: of the file that `picture` goes to.
    """

    heading: str
    picture_name: str

    @property
    def config(self) -> Any:
        """The run's `train.config.Config`, which gathers the settings of all parts."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is measured; by the first, a share, checkpoints are best."""
        ...

    def open_splits(self, class_names: tuple[str, ...]) -> tuple[Any, Any]:
        """What to train on and what to measure on; each is a `Split`.

        Args:
          class_names: what the weights at hand know, in order; empty where they know none.

        Raises:
          train.data.fetching.fetch.DataError: no such data, or of other classes.
        """
        ...

    def eval_split(self, class_names: tuple[str, ...]) -> Any:
        """What to measure on alone; as `open_splits`."""
        ...

    def check(self, split: Any) -> None:
        """Refuse what would spoil training; raises DataError."""
        ...

    def remarks(self, split: Any) -> Sequence[str]:
        """Sentences for people on what a split leaves out."""
        ...

    def start(self, class_names: tuple[str, ...]) -> tuple[Model, Metadata]:
        """The dense model a run starts from, and what its weight file will say.

        Raises:
          ValueError: unknown model or field, impossible value, or weights for other classes.
        """
        ...

    def load(self, weights: Path) -> tuple[Model, Metadata]:
        """The model in a weight file, pruned as the config says. Raises ValueError as `start`."""
        ...

    def create(self, num_classes: int | None, weights: str | None) -> Model:
        """The model of a run, pruned, whether or not its weights and data are there.

        Args:
          num_classes: of the data, where they are there.
          weights: a file that exists, or None for fresh values.

        Raises:
          ValueError: as `start`.
        """
        ...

    def with_prune(self, model: Model, prune: PruneConfig | None) -> Model:
        """A model with the same values, pruned otherwise."""
        ...

    def optimizer(self, model: Model, rate: optax.Schedule) -> optax.GradientTransformation:
        """The optimiser of a model; `rate` is the learning rate by the number of steps before."""
        ...

    def loss(self, model: Model, metadata: Metadata) -> Loss:
        """What the step makes smaller; `model` is the one to start from, still dense."""
        ...

    def steps_per_epoch(self, split: Any) -> int:
        """Batches of an epoch. Raises DataError where there is none."""
        ...

    def train_batches(
        self, split: Any, model: Model, metadata: Metadata, first: int, runtime: Runtime
    ) -> Iterator[Batch]:
        """Endless batches from number `first` on; `image`, `index` and `mask` are in each."""
        ...

    def score(
        self,
        model: Model,
        split: Any,
        metadata: Metadata,
        runtime: Runtime,
        title: str,
        *,
        confusion: bool = False,
    ) -> Scores:
        """Of every example once, on all devices of all processes; each gets the same result.

        Args:
          model: in inference mode.
          split: what to measure on.
          metadata: of the model's weights.
          runtime: where to compute.
          title: of the progress bar.
          confusion: whether to count too which classes are taken for which.

        Raises:
          train.data.fetching.fetch.DataError: what cannot be read.
          ValueError: confusion that the task cannot count.
        """
        ...

    def inference(self, model: Model) -> tuple[jax.stages.Wrapped, tuple]:
        """A jitted function and its arguments: a batch of evaluation, noise in place of photos."""
        ...

    def tokens(self, model: Model) -> tuple[int, ...]:
        """Image tokens at first and after each pruning stage."""
        ...

    def flops(self, model: Model) -> Mapping[str, int]:
        """Multiply-adds of one image: the `total`, and parts or other counts worth telling."""
        ...

    def picture(self, model: Model, metadata: Metadata, split: Any) -> Image.Image | None:
        """What the model does with a split's first photos; None where there is nothing to show."""
        ...

    def step_batch(self, model: Model) -> dict[str, jax.ShapeDtypeStruct]:
        """What one step takes."""
        ...

    def outputs(self, model: Model) -> list[str]:
        """What the model then gives, in words."""
        ...

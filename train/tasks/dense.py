"""What detection and segmentation share: their models, from scratch, classifiers or weights."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import optax
from flax import nnx

from ssmjax import PruneConfig, imagenet
from ssmjax.dense import registry
from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.dense.config import PRESETS
from ssmjax.dense.flops import flops
from ssmjax.dense.pretrained import load_classifier
from ssmjax.dense.registry import DenseModel
from ssmjax.models.config import overridden
from ssmjax.preprocess import PLAIN
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, read_metadata
from train.data.dense.batches import Epochs, OnePass
from train.data.fetching.fetch import MissingDataError
from train.data.prefetch import Batch
from train.engine import optim
from train.hosts.devices import place_batch, place_state
from train.hosts.runtime import Runtime
from train.tasks.config import TaskConfig

# What ends in a number of classes: fresh where other classes are learned.
HEADS = (
    "head.classes.",
    "auxiliary.classes.",
    "box_head.classes.",
    "box_head.deltas.",
    "mask_head.masks.",
)
Sides = tuple[int, int]  # Height and width.


@dataclasses.dataclass(frozen=True)
class DenseTask:
    """The parts of a `train.engine.task.Task` that do not tell the dense tasks apart."""

    config: TaskConfig
    data: Any

    kinds: ClassVar[tuple[type, ...]]  # Of the configs of its models.
    batches: ClassVar[Any]  # The module that makes batches of its data.
    changes: ClassVar[tuple[str, ...]]  # Fields of its data: what is done to images in training.
    needs: ClassVar[str]  # What of a batch, beside its images, a compiled function takes.

    def __post_init__(self) -> None:
        chosen, prune = self.config.optim, self.config.prune
        for name in ("distill", "label_smoothing"):
            if getattr(chosen, name) != 0:
                raise ValueError(
                    f"optim.{name} is {getattr(chosen, name)}; detection and segmentation do not "
                    "have it, so leave it at 0."
                )
        if prune is not None and not isinstance(prune, DensePruneConfig):
            raise ValueError(
                "prune is a PruneConfig, which is for classifiers; give a "
                "ssmjax.dense.backbones.ranges.DensePruneConfig."
            )

    @property
    def sides(self) -> Sides:
        """Height and width of the images that speed and FLOPs are measured on."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """The folder of the data set; raises MissingDataError where there is none."""
        folder = Path(self.data.path)
        if not folder.is_dir():
            raise MissingDataError(
                f"There is no data set in {folder}; unpack it there, or name its folder with "
                "--data.path."
            )
        return folder

    @property
    def model_name(self) -> str | None:
        """The registered name of the model."""
        chosen = self.config.model
        if chosen.name is None and chosen.weights is not None:
            return read_metadata(chosen.weights).model
        return chosen.name

    def open(self, class_names: tuple[str, ...], *, learn: bool) -> Any:
        """The split to learn from, or the one to measure on, of the classes that weights know."""
        raise NotImplementedError

    def open_splits(self, class_names: tuple[str, ...]) -> tuple[Any, Any]:
        train_split = self.open(class_names, learn=True)
        return train_split, self.eval_split(train_split.class_names)

    def eval_split(self, class_names: tuple[str, ...]) -> Any:
        return self.open(class_names, learn=False)

    def check(self, split: Any) -> None:
        """Opening has found all that is wrong."""

    def remarks(self, split: Any) -> Sequence[str]:
        return split.remarks

    def start(self, class_names: tuple[str, ...]) -> tuple[DenseModel, Metadata]:
        """A model whose values are of weights, or fresh but for a classifier's in the backbone."""
        chosen, seed = self.config.model, self.config.seed
        if chosen.weights is None:
            if chosen.name is None:
                raise ValueError(
                    f"model.name is missing; give one of {', '.join(self._names())}, or weights."
                )
            model = registry.create_model(
                chosen.name, seed=seed, num_classes=len(class_names), **chosen.overrides()
            )
            self._check_kind(model, chosen.name)
            if chosen.classifier is not None:
                load_classifier(model, chosen.classifier)
        else:
            model = registry.create_model(
                chosen.name, weights=chosen.weights, prune=None, **chosen.overrides()
            )
            self._check_kind(model, chosen.weights)
            if chosen.new_head:
                model = with_new_head(model, len(class_names), seed)
        outputs = model.config.num_classes
        if outputs != len(class_names):
            raise ValueError(
                f"{chosen.weights} tells {outputs} classes apart; the data have "
                f"{len(class_names)}. Give --model.new-head to learn new ones."
            )
        # Both refuse what the model does not have, early.
        trained = self.with_prune(model, self.config.prune)
        optim.frozen_mask(nnx.state(model, nnx.Param), self.config.optim.frozen)
        name = str(self.model_name)
        overrides = config_overrides(name, trained.config)
        return model, Metadata(name, overrides, class_names, imagenet.preprocessing(name))

    def load(self, weights: Path) -> tuple[DenseModel, Metadata]:
        metadata = read_metadata(weights)
        model = registry.create_model(weights=weights, prune=self._prune)
        self._check_kind(model, weights)
        configured = PRESETS.get(str(self.config.model.name), model.config)
        if type(model.config) is not type(configured):
            raise ValueError(
                f"{weights} holds a {type(model).__name__}, but the config is for "
                f"{self.config.model.name}; give weights of that kind, or another config."
            )
        return model, metadata

    def create(self, num_classes: int | None, weights: str | None) -> DenseModel:
        chosen, options = self.config.model, self.config.model.overrides()
        if num_classes and not weights:
            options["num_classes"] = num_classes
        model = registry.create_model(chosen.name, weights=weights, prune=self._prune, **options)
        self._check_kind(model, chosen.name or weights)
        return model

    def with_prune(self, model: DenseModel, prune: PruneConfig | None) -> DenseModel:
        config = overridden(model.config, {"prune": prune})
        changed = nnx.eval_shape(lambda: registry.build(config))
        nnx.update(changed, jax.tree.map(lambda array: array, nnx.state(model)))
        return changed

    def optimizer(self, model: DenseModel, rate: optax.Schedule) -> optax.GradientTransformation:
        breaks = model.backbone.trunk.breaks
        return optim.optimizer(self.config.optim, rate, breaks, self.decayed)

    @staticmethod
    def decayed(params: nnx.State) -> Any:
        """Which parameters decay; the same of equal optimisers, which share a compiled step."""
        raise NotImplementedError

    def plan(self, split: Any, batch_size: int) -> OnePass:
        """Which images are in each batch of evaluation."""
        raise NotImplementedError

    def plan_on(self, mesh: jax.sharding.Mesh, split: Any) -> OnePass:
        """`plan` with batches of the config's size, rounded up to a multiple of the devices."""
        return self.plan(split, -(-self.config.eval_batch_size // mesh.size) * mesh.size)

    def order(self, split: Any) -> Epochs:
        """Which images are in each batch of training."""
        return self.batches.epoch_order(split, self.config.optim.batch_size, self.config.seed)

    def steps_per_epoch(self, split: Any) -> int:
        return self.order(split).steps

    def train_batches(
        self, split: Any, model: DenseModel, metadata: Metadata, first: int, runtime: Runtime
    ) -> Iterator[Batch]:
        return self.batches.train_batches(
            split,
            self.order(split),
            **{name: getattr(self.data, name) for name in self.changes},
            first=first,
            workers=runtime.workers,
            process=runtime.process,
        )

    def inputs(
        self, model: DenseModel, split: Any, plan: OnePass, runtime: Runtime, title: str
    ) -> Iterator[tuple[Batch, tuple]]:
        """Every batch of this process' images, and what a compiled function takes first of it.

        That is (graphdef, state, images and what it `needs` on the devices, key). The arguments are
        those of `score`, and a plan of the same split.
        """
        graphdef, state = nnx.split(model)
        state, key = place_state(state, runtime.mesh, fsdp=False), jax.random.key(self.config.seed)
        options = {"workers": runtime.workers, "process": runtime.process}
        batches = self.batches.eval_batches(split, plan, scale=self.data.scale, **options)
        bar = runtime.progress
        task = bar.add_task(f"{title}, batch", total=len(plan.batches))
        for number, batch in enumerate(batches):
            needed = {name: batch[name] for name in ("image", self.needs)}
            placed = place_batch(needed, runtime.mesh)
            yield batch, (graphdef, state, placed, jax.random.fold_in(key, number))
            bar.update(task, advance=1)
        bar.remove_task(task)

    def noise(self, model: DenseModel) -> tuple:
        """What inference takes first: model, a batch of `sides`, key, preprocessing."""
        B = self.config.eval_batch_size
        images = np.random.default_rng(0).integers(0, 256, (B, *self.sides, 3), np.uint8)
        batch = {"image": images, self.needs: np.tile(np.array(self.sides, np.int32), (B, 1))}
        return *nnx.split(model), batch, jax.random.key(0), PLAIN

    def tokens(self, model: DenseModel) -> tuple[int, ...]:
        """Tokens of an image of `sides`, at first and after each pruning stage."""
        trunk = model.config.backbone.pruned_trunk()
        return dataclasses.replace(trunk, img_size=self.sides).image_tokens

    def flops(self, model: DenseModel) -> Mapping[str, int]:
        """Multiply-adds of an image of `sides`: all of them, and those in the backbone."""
        counted = flops(model.config, self.sides)
        return {"total": counted.total, "in the backbone": sum(counted.backbone.values())}

    @property
    def _prune(self) -> DensePruneConfig | None:
        return self.config.prune  # pyright: ignore[reportReturnType]

    def _names(self) -> Iterable[str]:
        return (name for name, config in PRESETS.items() if isinstance(config, self.kinds))

    def _check_kind(self, model: DenseModel, what: Any) -> None:
        if not isinstance(model.config, self.kinds):
            raise ValueError(
                f"{what} is a {type(model).__name__}, which does not fit the data of the config; "
                f"for these choose one of {', '.join(self._names())}."
            )


def with_new_head(model: DenseModel, num_classes: int, seed: int) -> DenseModel:
    """The same values, but fresh ones for other classes."""
    fresh = registry.build(overridden(model.config, {"num_classes": num_classes}), seed=seed)
    values = flat_params(model)
    for name, leaf in flat_params(fresh).items():
        if not name.startswith(HEADS):
            leaf.set_value(values[name][...])
    return fresh


def bare_norms(params: nnx.State) -> set[tuple[str, ...]]:
    """Names of the parameters of norms that follow no convolution of their own."""
    names = {tuple(optim.keys(path)) for path, _ in jax.tree.leaves_with_path(params)}
    of_norms = {name for name in names if name[-2].endswith("norm") or "norms" in name[-3:-1]}
    return {name for name in of_norms if (*name[:-2], "conv", "kernel") not in names}

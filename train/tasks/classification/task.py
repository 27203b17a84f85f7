"""Classification: the class of a photo."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from PIL import Image

import ssmjax
from ssmjax import Backbone, PruneConfig
from ssmjax.analysis.pictures import kept_tokens_picture
from ssmjax.preprocess import PLAIN, Preprocessing
from ssmjax.registry import config_overrides, create_classifier
from ssmjax.weights import Metadata, read_metadata
from train.augment.recipe import make_recipe
from train.data import check
from train.data.config import DataConfig
from train.data.pipeline import epoch_steps, eval_batches, train_batches
from train.data.prefetch import Batch
from train.data.sources.source import Split, open_split
from train.data.unreadable import Unreadable
from train.engine import optim
from train.hosts.devices import InFlight, place_batch, place_state
from train.hosts.runtime import Runtime
from train.tasks.classification.accuracy import Scores, count
from train.tasks.classification.loss import ClassificationLoss
from train.tasks.config import TaskConfig


@dataclasses.dataclass(frozen=True)
class Classify:
    """A `train.engine.task.Task`, which says what each method is for."""

    config: TaskConfig
    data: DataConfig

    metrics = "accuracy", "top5"
    heading = "top-1 %"
    picture_name = "kept_tokens.png"

    def open_splits(self, class_names: tuple[str, ...]) -> tuple[Split, Split]:
        train_split = open_split(self.data, self.data.train_split, class_names)
        return train_split, self.eval_split(train_split.class_names)

    def eval_split(self, class_names: tuple[str, ...]) -> Split:
        return open_split(self.data, self.data.eval_split, class_names)

    def check(self, split: Split) -> None:
        check.check_classes(split)

    def remarks(self, split: Split) -> Sequence[str]:
        """On files that were left out and on classes without photos."""
        return (*split.remarks, *check.remarks(split))

    def start(self, class_names: tuple[str, ...]) -> tuple[Backbone, Metadata]:
        config, data, chosen = self.config, self.data, self.config.model
        if chosen.weights is None:
            if chosen.name is None:
                raise ValueError(
                    "model.name is missing; give one of ssmjax.list_models(), or weights."
                )
            model = create_classifier(
                chosen.name, seed=config.seed, num_classes=len(class_names), **chosen.overrides()
            )
            name, how = chosen.name, Preprocessing(data.mean, data.std)
        else:
            stored = read_metadata(chosen.weights)
            head = {"num_classes": len(class_names)} if chosen.new_head else {}
            options = chosen.overrides() | head
            model = create_classifier(
                chosen.name, seed=config.seed, weights=chosen.weights, prune=None, **options
            )
            outputs = model.config.num_classes
            if outputs != len(class_names):
                raise ValueError(
                    f"{chosen.weights} tells {outputs} classes apart; the data set "
                    f"{data.name} has {len(class_names)}. Give --model.new-head to learn new ones."
                )
            name, how = stored.model, stored.preprocessing
        # Both refuse what the model does not have, early.
        trained = model.with_prune(config.prune)
        optim.frozen_mask(nnx.state(model, nnx.Param), config.optim.frozen)
        overrides = config_overrides(name, trained.config)
        return model, Metadata(name, overrides, class_names, self._as_asked(how))

    def load(self, weights: Path) -> tuple[Backbone, Metadata]:
        metadata = read_metadata(weights)
        how = self._as_asked(metadata.preprocessing)
        model = create_classifier(weights=weights, prune=self.config.prune)
        return model, dataclasses.replace(metadata, preprocessing=how)

    def create(self, num_classes: int | None, weights: str | None) -> Backbone:
        chosen, options = self.config.model, self.config.model.overrides()
        if num_classes and (chosen.new_head or not weights):
            options["num_classes"] = num_classes
        return create_classifier(chosen.name, weights=weights, prune=self.config.prune, **options)

    def with_prune(self, model: Backbone, prune: PruneConfig | None) -> Backbone:
        return model.with_prune(prune)

    def optimizer(self, model: Backbone, rate: optax.Schedule) -> optax.GradientTransformation:
        return optim.optimizer(self.config.optim, rate, model.breaks)

    def loss(self, model: Backbone, metadata: Metadata) -> ClassificationLoss:
        """Cross entropy, and what the dense model says where the run follows it."""
        chosen, classes = self.config.optim, model.config.num_classes
        loss = ClassificationLoss(chosen, self.data.augment, classes, metadata.preprocessing)
        if not chosen.distill:
            return loss
        graphdef, state = nnx.split(model.with_prune(None))
        return dataclasses.replace(loss, teacher_graphdef=graphdef, teacher_state=state)

    def steps_per_epoch(self, split: Split) -> int:
        return epoch_steps(split, self.config.optim.batch_size)

    def train_batches(
        self, split: Split, model: Backbone, metadata: Metadata, first: int, runtime: Runtime
    ) -> Iterator[Batch]:
        size = model.config.image_shape[:2]
        return train_batches(
            split,
            recipe=make_recipe(self.data.augment, size, metadata.preprocessing.mean),
            batch_size=self.config.optim.batch_size,
            seed=self.config.seed,
            first=first,
            workers=runtime.workers,
            process=runtime.process,
        )

    def score(
        self,
        model: Backbone,
        split: Split,
        metadata: Metadata,
        runtime: Runtime,
        title: str,
        *,
        confusion: bool = False,
    ) -> Scores:
        """Of the photos that can be read."""
        graphdef, state = nnx.split(model)
        state, mesh = place_state(state, runtime.mesh, fsdp=False), runtime.mesh
        batch_size = -(-self.config.eval_batch_size // mesh.size) * mesh.size
        batches = eval_batches(
            split,
            batch_size=batch_size,
            size=model.config.image_shape[:2],
            crop_pct=metadata.preprocessing.crop_pct,
            workers=runtime.workers,
            process=runtime.process,
        )
        key, bar = jax.random.key(self.config.seed), runtime.progress
        task = bar.add_task(f"{title}, batch", total=-(-len(split.source) // batch_size))
        unreadable = Unreadable(split, self.data.max_unreadable, bar.console)
        in_flight = InFlight()
        totals: Any = None
        for number, batch in enumerate(batches):
            unreadable.note(batch)
            counts = count(
                graphdef,
                state,
                place_batch({name: batch[name] for name in ("image", "label", "mask")}, mesh),
                jax.random.fold_in(key, number),
                metadata.preprocessing,
                confusion,
            )
            in_flight.add(counts)
            totals = counts if totals is None else jax.tree.map(jnp.add, totals, counts)
            bar.update(task, advance=1)
        bar.remove_task(task)
        return Scores.from_counts(totals, split.title)

    def inference(self, model: Backbone) -> tuple[jax.stages.Wrapped, tuple]:
        B = self.config.eval_batch_size
        shape, rng = (B, *model.config.image_shape), np.random.default_rng(0)
        batch = {
            "image": rng.integers(0, 256, shape, np.uint8),
            "label": np.zeros(B, np.int32),
            "mask": np.ones(B, bool),
        }
        return count, (*nnx.split(model), batch, jax.random.key(0), PLAIN, False)

    def tokens(self, model: Backbone) -> tuple[int, ...]:
        """Image tokens at the model's own image size, at first and after each pruning stage."""
        return model.config.image_tokens

    def flops(self, model: Backbone) -> Mapping[str, int]:
        """Multiply-adds at the model's own image size; papers count one of Vim's two directions."""
        flops = ssmjax.flops(model)
        return {"total": flops.total, "as published": flops.published}

    def picture(self, model: Backbone, metadata: Metadata, split: Split) -> Image.Image | None:
        """Photos stage by stage, with true and predicted class; of a pruned model only."""
        if model.config.prune is None:
            return None
        photos, size = self.config.pictures, model.config.image_shape[:2]
        how = metadata.preprocessing
        batch = next(eval_batches(split, batch_size=photos, size=size, crop_pct=how.crop_pct))
        pixels, labels = batch["image"][batch["mask"]], batch["label"][batch["mask"]]
        logits, stages = model(how.normalise(pixels), key=jax.random.key(0), return_positions=True)
        names = metadata.class_names
        captions = [
            f"{names[label]}" if label == guess else f"{names[label]}, taken for {names[guess]}"
            for label, guess in zip(labels, np.argmax(logits, axis=-1), strict=True)
        ]
        return kept_tokens_picture(pixels, [np.asarray(s) for s in stages], model.config, captions)

    def step_batch(self, model: Backbone) -> dict[str, jax.ShapeDtypeStruct]:
        size = (self.config.optim.batch_size, *model.config.image_shape)
        return {
            "image": jax.ShapeDtypeStruct(size, np.uint8),
            "label": jax.ShapeDtypeStruct(size[:1], np.int32),
        }

    def outputs(self, model: Backbone) -> list[str]:
        return [f"logits {[self.config.optim.batch_size, model.config.num_classes]}"]

    def _as_asked(self, preprocessing: Preprocessing) -> Preprocessing:
        """With the config's share of a photo's shorter side, where it has one."""
        crop_pct = self.data.crop_pct
        if crop_pct is None:
            return preprocessing
        return dataclasses.replace(preprocessing, crop_pct=crop_pct)

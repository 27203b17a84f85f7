"""Segmentation: the class of each pixel."""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from ssmjax.dense.config import UperNetConfig
from ssmjax.dense.registry import DenseModel
from ssmjax.predict.pictures import legend, stacked, with_segments
from ssmjax.weights import Metadata
from train.data.dense import segmentation_batches
from train.data.dense.ade20k import PairSplit, open_ade20k, open_pairs
from train.data.dense.batches import OnePass
from train.data.dense.config import SegmentationData
from train.engine import optim
from train.hosts.devices import own_rows
from train.hosts.runtime import Runtime
from train.metrics import miou
from train.tasks.dense import DenseTask, Sides, bare_norms
from train.tasks.segmentation.loss import (
    SegmentationLoss,
    canvas_of,
    class_logits,
    classify_pixels,
    label_pixels,
)

PLAIN = ("A_log", "D", "direction_B", "pos_embed")  # They never decay on PlainMamba.
VECTORS = ("D", "bias", "dt_bias", "scale")  # Nor these on Vim.


@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """How well the classes of pixels are found.

    Attributes:
      counted: by `train.metrics.miou`.
      confusion: [C,C] int64, pixels by true class and found class.
      images: how many there were.
      shapes: how many shapes of batches the model was compiled for.
      class_names: in the order of the labels.
    """

    counted: miou.Scores
    confusion: np.ndarray
    images: int
    shapes: int
    class_names: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """What the log has, by the names that mmsegmentation gives."""
        counted = self.counted
        return {
            "mIoU": counted.mean_iou,
            "aAcc": counted.all_accuracy,
            "mAcc": counted.mean_accuracy,
        }

    def __str__(self) -> str:
        shares = [f"{name} {100 * value:.2f}%" for name, value in self.metrics.items()]
        counts = f"{self.images:,} images", f"shapes {self.shapes}"
        return "  ".join([*shares, *counts, miou.coverage(self.confusion, self.class_names)])


@dataclasses.dataclass(frozen=True)
class Segment(DenseTask):
    """A `train.engine.task.Task`, which says what each method is for."""

    data: SegmentationData

    kinds = (UperNetConfig,)
    batches = segmentation_batches
    changes = "scale", "crop"
    needs = "original_shape"
    metrics = "mIoU", "aAcc", "mAcc"  # As mmsegmentation calls them.
    heading = "mIoU %"
    picture_name = "segments.png"

    @property
    def sides(self) -> Sides:
        """Height and width of evaluation's windows, or of its largest images."""
        return self.data.window or (min(self.data.scale), max(self.data.scale))

    def open(self, class_names: tuple[str, ...], *, learn: bool) -> PairSplit:
        data, folder = self.data, self.folder
        split = data.train_split if learn else data.eval_split
        if data.class_names is None:
            return open_ade20k(folder, split, class_names)
        images, labels = folder / "images" / split, folder / "labels" / split
        return open_pairs(images, labels, data.class_names, class_names)

    def loss(self, model: DenseModel, metadata: Metadata) -> SegmentationLoss:
        return SegmentationLoss(metadata.preprocessing, self.config.optim.remat)

    @staticmethod
    def decayed(params: nnx.State) -> Any:
        """What decays, on PlainMamba or on Vim.

        On PlainMamba all, biases too, but norms that follow no convolution, and parameters of
        states. The backbone's last norm, the classifier's own, decays. On Vim all but vectors.
        """
        if "norms" not in params["backbone"]:
            return jax.tree.map_with_path(
                lambda path, _: optim.keys(path)[-1] not in VECTORS, params
            )
        norms = bare_norms(params)
        last = str(len(params["backbone"]["norms"]) - 1)
        norms = {name for name in norms if name[:3] != ("backbone", "norms", last)}

        def decays(path, _) -> bool:
            name = tuple(optim.keys(path))
            return not (name[-1] in PLAIN or name in norms)

        return jax.tree.map_with_path(decays, params)

    def plan(self, split: PairSplit, batch_size: int) -> OnePass:
        """Images of one size in each batch."""
        return segmentation_batches.eval_pass(split, batch_size=batch_size, scale=self.data.scale)

    def score(
        self,
        model: DenseModel,
        split: PairSplit,
        metadata: Metadata,
        runtime: Runtime,
        title: str,
        *,
        confusion: bool = False,
    ) -> SegmentationScores:
        """The scores of all processes' pixels, at the images' own sizes, always with confusions."""
        plan, classes = self.plan_on(runtime.mesh, split), len(split.class_names)
        counts = np.zeros((classes, classes), np.int64)
        for batch, inputs in self.inputs(model, split, plan, runtime, title):
            _, _, placed, _ = inputs
            labels, mesh = batch["label"], runtime.mesh
            logits = class_logits(*inputs, metadata.preprocessing, mesh, self._windows)
            canvas = canvas_of(labels.shape[1:])
            found = label_pixels(logits, placed["original_shape"], canvas, mesh)
            found = own_rows(found)[:, : labels.shape[1], : labels.shape[2]]
            counts += miou.confusion(labels, found, classes)
        counts = miou.summed(counts)
        counted, images, shapes = miou.scores(counts), len(split.pairs), len(plan.shapes)
        return SegmentationScores(counted, counts, images, shapes, split.class_names)

    def inference(self, model: DenseModel) -> tuple[jax.stages.Wrapped, tuple]:
        return classify_pixels, (*self.noise(model), self.sides)

    def picture(
        self, model: DenseModel, metadata: Metadata, split: PairSplit
    ) -> Image.Image | None:
        first = dataclasses.replace(split, pairs=split.pairs[: self.config.pictures])
        plan = self.plan(first, 1)
        rows = []
        graphdef, state = nnx.split(model)
        for batch in segmentation_batches.eval_batches(first, plan, scale=self.data.scale):
            size, images, key = batch["img_shape"], {"image": batch["image"]}, jax.random.key(0)
            how = metadata.preprocessing
            logits = class_logits(graphdef, state, images, key, how, None, self._windows)
            found = label_pixels(logits, size, tuple(size[0].tolist()), None)
            image, found = batch["image"][0], np.asarray(found[0])
            rows.append([Image.fromarray(image), with_segments(image, found)])
            rows.append([legend(found, metadata.class_names, 2 * image.shape[1])])
        return stacked(rows)

    def step_batch(self, model: DenseModel) -> dict[str, jax.ShapeDtypeStruct]:
        B, crop = self.config.optim.batch_size, self.data.crop
        shapes = {
            "image": ((B, *crop, 3), np.uint8),
            "img_shape": ((B, 2), np.int32),
            "label": ((B, *crop), np.uint8),
        }
        return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    def outputs(self, model: DenseModel) -> list[str]:
        shape = [self.config.optim.batch_size, *self.data.crop, model.config.num_classes]
        return [f"logits {shape}"]

    @property
    def _windows(self) -> tuple[Sides, Sides] | None:
        window, stride = self.data.window, self.data.stride
        return None if window is None or stride is None else (window, stride)

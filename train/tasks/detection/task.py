"""Detection: boxes of objects, and their masks where the model finds masks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from PIL import Image

from ssmjax.dense.config import PRESETS, MaskRCNNConfig, RetinaNetConfig
from ssmjax.dense.heads.objects import DETECTIONS
from ssmjax.dense.registry import DenseModel
from ssmjax.dense.retinanet import UNUSED, RetinaNet
from ssmjax.predict.pictures import stacked, with_objects
from ssmjax.weights import Metadata
from train.data.dense import detection_batches
from train.data.dense.batches import OnePass
from train.data.dense.coco import CocoSplit, open_coco
from train.data.dense.config import DetectionData
from train.engine import optim
from train.hosts.devices import own_rows
from train.hosts.runtime import Runtime
from train.metrics import coco
from train.tasks.dense import DenseTask, Sides, bare_norms
from train.tasks.detection.loss import DetectionLoss, find, whole_masks

PLAIN = ("A_log", "D", "direction_B", "pos_embed", "level_embed")  # They never decay.
OBJECTS = 100  # On an image, where shapes alone are looked at.


@dataclasses.dataclass(frozen=True)
class DetectionScores:
    """COCO's twelve numbers of boxes, and of masks; more is better, -1 where nothing is to find.

    Attributes:
      box, mask: by their names in `train.metrics.coco`; masks have none where none are found.
      images: how many there were.
      shapes: how many shapes of batches the model was compiled for.
    """

    box: Mapping[str, float]
    mask: Mapping[str, float]
    images: int
    shapes: int
    confusion: None = None

    @property
    def metrics(self) -> dict[str, float]:
        """What the log has."""
        kinds = {"box": self.box, "mask": self.mask}
        return {f"{kind}_{name}": v for kind, of in kinds.items() for name, v in of.items()}

    def __str__(self) -> str:
        kinds = [
            f"{kind} " + " ".join(f"{name} {_percent(of[name])}" for name in coco.NAMES[:3])
            for kind, of in (("box", self.box), ("mask", self.mask))
            if of
        ]
        return "  ".join([*kinds, f"{self.images:,} images", f"shapes {self.shapes}"])


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.2f}"


@dataclasses.dataclass(frozen=True)
class Detect(DenseTask):
    """A `train.engine.task.Task`, which says what each method is for."""

    data: DetectionData

    kinds = (MaskRCNNConfig, RetinaNetConfig)
    batches = detection_batches
    changes = "scale", "shapes", "flip"
    needs = "img_shape"
    heading = "box AP"
    picture_name = "detections.png"

    @property
    def masks(self) -> bool:
        """Whether the model finds masks."""
        return isinstance(PRESETS.get(str(self.model_name)), MaskRCNNConfig)

    @property
    def metrics(self) -> tuple[str, ...]:
        """COCO's twelve of boxes, and of masks."""
        kinds = ("box", "mask") if self.masks else ("box",)
        return tuple(f"{kind}_{name}" for kind in kinds for name in coco.NAMES)

    @property
    def sides(self) -> Sides:
        """The first of the padded shapes."""
        return self.data.shapes[0]

    def open(self, class_names: tuple[str, ...], *, learn: bool) -> CocoSplit:
        data, folder = self.data, self.folder
        return open_coco(
            folder / (data.train_annotations if learn else data.eval_annotations),
            folder / (data.train_images if learn else data.eval_images),
            masks=self.masks,
            keep_empty=data.keep_empty or not learn,
            learn=learn,
            classes=class_names,
        )

    def loss(self, model: DenseModel, metadata: Metadata) -> DetectionLoss:
        return DetectionLoss(metadata.preprocessing, self.config.optim.remat)

    def optimizer(self, model: DenseModel, rate: optax.Schedule) -> optax.GradientTransformation:
        """AdamW; what no gradient reaches does not decay either, as in PyTorch."""
        chosen = self.config.optim
        if isinstance(model, RetinaNet):
            chosen = dataclasses.replace(chosen, frozen=(*chosen.frozen, *UNUSED))
        return optim.optimizer(chosen, rate, model.backbone.trunk.breaks, self.decayed)

    @staticmethod
    def decayed(params: nnx.State) -> Any:
        """All but biases, norms that follow no convolution, and parameters of states and places."""
        norms = bare_norms(params)

        def decays(path, _) -> bool:
            name = tuple(optim.keys(path))
            return not (name[-1].endswith("bias") or name[-1] in PLAIN or name in norms)

        return jax.tree.map_with_path(decays, params)

    def plan(self, split: CocoSplit, batch_size: int) -> OnePass:
        """Images of one padded shape in each batch."""
        shapes = None if self.data.own_shapes else self.data.shapes
        return detection_batches.eval_pass(
            split, batch_size=batch_size, scale=self.data.scale, shapes=shapes
        )

    def score(
        self,
        model: DenseModel,
        split: CocoSplit,
        metadata: Metadata,
        runtime: Runtime,
        title: str,
        *,
        confusion: bool = False,
    ) -> DetectionScores:
        if confusion:
            raise ValueError("--confusion is for classes of photos or pixels; leave it out.")
        masks, category_ids = isinstance(model.config, MaskRCNNConfig), split.category_ids
        results, plan = {}, self.plan_on(runtime.mesh, split)
        for batch, inputs in self.inputs(model, split, plan, runtime, title):
            found = own_rows(find(*inputs, metadata.preprocessing, masks, runtime.mesh))
            for i in np.flatnonzero(batch["mask"]):
                one = jax.tree.map(lambda a, i=i: a[i], found)
                valid, boxes = one.valid, one.boxes / batch["scale_factor"][i]
                image_id, shape = int(batch["image_id"][i]), batch["original_shape"][i]
                drawn = whole_masks(one.masks, boxes, shape)[valid] if masks else None
                results[image_id] = coco.detections(
                    image_id,
                    boxes[valid],
                    one.scores[valid],
                    one.labels[valid],
                    category_ids,
                    drawn,
                )
        results = coco.gathered(results)
        annotations = self.folder / self.data.eval_annotations
        box, *mask = coco.evaluate(annotations, results, ["bbox", "segm"] if masks else ["bbox"])
        return DetectionScores(box, mask[0] if masks else {}, len(results), len(plan.shapes))

    def inference(self, model: DenseModel) -> tuple[jax.stages.Wrapped, tuple]:
        return find, (*self.noise(model), self.masks, None)

    def picture(
        self, model: DenseModel, metadata: Metadata, split: CocoSplit
    ) -> Image.Image | None:
        first = dataclasses.replace(split, photos=split.photos[: self.config.pictures])
        plan = self.plan(first, 1)
        rows = []
        graphdef, state = nnx.split(model)
        for batch in detection_batches.eval_batches(first, plan, scale=self.data.scale):
            h, w = batch["img_shape"][0]
            sized = {name: batch[name] for name in ("image", "img_shape")}
            key, with_masks = jax.random.key(0), isinstance(model.config, MaskRCNNConfig)
            found = find(graphdef, state, sized, key, metadata.preprocessing, with_masks, None)
            one = jax.tree.map(lambda a: np.asarray(a[0]), found)
            masks = None if one.masks is None else whole_masks(one.masks, one.boxes, (h, w))
            found = one._replace(masks=masks)
            rows.append([with_objects(batch["image"][0, :h, :w], found, metadata.class_names)])
        return stacked(rows)

    def step_batch(self, model: DenseModel) -> dict[str, jax.ShapeDtypeStruct]:
        """Images of the first shape, with as many objects as COCO's have at most."""
        B, (height, width) = self.config.optim.batch_size, self.sides
        shapes = {
            "image": ((B, height, width, 3), np.uint8),
            "img_shape": ((B, 2), np.int32),
            "pad_shape": ((B, 2), np.int32),
            "gt_boxes": ((B, OBJECTS, 4), np.float32),
            "gt_labels": ((B, OBJECTS), np.int32),
            "gt_valid": ((B, OBJECTS), bool),
        }
        if isinstance(model.config, MaskRCNNConfig):
            shapes["gt_masks"] = ((B, OBJECTS, height, width // 8), np.uint8)
        return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    def outputs(self, model: DenseModel) -> list[str]:
        B = self.config.optim.batch_size
        return [f"detections {[B, DETECTIONS]} of {model.config.num_classes} classes"]

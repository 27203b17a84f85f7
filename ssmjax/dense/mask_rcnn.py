"""Mask R-CNN (He et al. 2017, arXiv 1703.06870): boxes and masks of objects, in two stages."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.dense.backbones.adapter import PlainMambaAdapter
from ssmjax.dense.config import MaskRCNNConfig
from ssmjax.dense.detector import Detector
from ssmjax.dense.geometry.roi_align import STRIDES, roi_align
from ssmjax.dense.heads.box_head import BINS, BoxHead, Regions, box_losses, detections, regions
from ssmjax.dense.heads.fpn import FPN
from ssmjax.dense.heads.losses import Term
from ssmjax.dense.heads.mask_head import BINS as MASK_BINS
from ssmjax.dense.heads.mask_head import MaskHead, mask_loss, probabilities
from ssmjax.dense.heads.objects import Detections, Targets
from ssmjax.dense.heads.rpn import RPN, Proposals, proposals, rpn_losses

Maps = tuple[jax.Array, ...]


class MaskRCNN(Detector):
    """A detector of two stages that also finds masks."""

    def __init__(self, config: MaskRCNNConfig, *, rngs: nnx.Rngs):
        self.config = config
        trunk, width, classes = config.backbone.trunk, config.width, config.num_classes
        options = {"dtype": jnp.dtype(trunk.dtype), "rngs": rngs}
        self.backbone = PlainMambaAdapter(config.backbone, rngs=rngs)
        self.neck = FPN(trunk.embed_dim, width, len(STRIDES), extra_convs=False, **options)
        self.rpn = RPN(width, **options)
        self.box_head = BoxHead(width, config.hidden, classes, **options)
        self.mask_head = MaskHead(width, classes, **options)

    def look(self, maps: Maps, *, train: bool) -> Maps:
        """The feature pyramid at strides 4 to 64."""
        return self.neck(maps, train=train)

    def terms(self, seen: Maps, targets: Targets, *, train: bool) -> dict[str, Term]:
        """The losses of both stages; their means are over the samples of all images given.

        Returns:
          {"loss_rpn_cls", "loss_rpn_bbox": objectness and deltas of anchors; "loss_cls",
          "loss_bbox", "loss_mask": classes, deltas and masks of regions}.

        Raises:
          ValueError: the targets have no masks.
        """
        anchor_keys = region_keys = None
        if targets.keys is not None:
            anchor_keys, region_keys = jax.vmap(jax.random.split, out_axes=1)(targets.keys)
        predicted = self.rpn(seen)
        objectness, box = rpn_losses(predicted, targets, anchor_keys)
        found = proposals(predicted, targets.image_shapes, self.config.proposals, train=True)
        return {
            "loss_rpn_cls": objectness.over_levels(),
            "loss_rpn_bbox": box.over_levels(),
            **self.region_losses(seen, found, targets, region_keys, train=train),
        }

    def region_losses(
        self,
        maps: Maps,
        found: Proposals,
        targets: Targets,
        keys: jax.Array | None,
        *,
        train: bool,
    ) -> dict[str, Term]:
        """Losses of the second stage, over the number of regions or of the pixels of masks.

        Args:
          maps: from `look`.
          found: what the first stage proposes.
          targets: the objects, with masks.
          keys: [B] random keys for the choice of regions; None chooses evenly.
          train: whether batch norms train.

        Raises:
          ValueError: the targets have no masks.
        """
        if targets.masks is None:
            raise ValueError("targets has no masks, which Mask R-CNN learns; give them.")
        sampled = self.regions(found, targets, keys)
        levels = maps[: len(STRIDES)]
        features = roi_align(levels, sampled.boxes, sampled.valid, BINS)
        logits, deltas = self.box_head(features, sampled.valid, train=train)
        classes, box = box_losses(logits, deltas, sampled)
        few = jax.tree.map(lambda a: a[:, : self.config.samples // 4], sampled)
        logits = self.mask_head(roi_align(levels, few.boxes, few.positive, MASK_BINS))
        mask = mask_loss(logits, targets.masks, targets.padded_shapes, few)
        return {"loss_cls": classes, "loss_bbox": box, "loss_mask": mask}

    def regions(self, found: Proposals, targets: Targets, keys: jax.Array | None) -> Regions:
        """The regions that the second stage learns from; for `keys` see `region_losses`."""
        sizes = {"num_classes": self.config.num_classes, "samples": self.config.samples}
        return jax.vmap(partial(regions, **sizes))(found, targets, keys)

    def find(self, seen: Maps, image_shapes: jax.Array, *, masks: bool = False) -> Detections:
        """Objects; with `masks` also theirs, for `ssmjax.dense.geometry.masks.paste`."""
        found = proposals(self.rpn(seen), image_shapes, self.config.proposals, train=False)
        return self.detect_in(seen, found, image_shapes, masks=masks)

    def detect_in(
        self, maps: Maps, found: Proposals, image_shapes: jax.Array, *, masks: bool
    ) -> Detections:
        """What the second stage finds in the proposals of the first; see `find`."""
        levels = maps[: len(STRIDES)]
        features = roi_align(levels, found.boxes, found.valid, BINS)
        logits, deltas = self.box_head(features, found.valid)
        result = jax.vmap(detections)(logits, deltas, found.boxes, found.valid, image_shapes)
        if not masks:
            return result
        logits = self.mask_head(roi_align(levels, result.boxes, result.valid, MASK_BINS))
        return result._replace(masks=probabilities(logits, result.labels))

"""Analytic FLOPs of detectors and segmentors; one multiply-add counts as one, as in papers.

Norms, activations, pooling, resizing, RoIAlign and what selects boxes are left out, as is usual.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ssmjax.analysis.flops import count_config, format_flops
from ssmjax.dense import retinanet, upernet
from ssmjax.dense.backbones.adapter import EXTRA_EXTRACTORS, LARGEST_STRIDE, AdapterConfig
from ssmjax.dense.backbones.ranges import RangesConfig
from ssmjax.dense.backbones.vim import STRIDES, VimFeaturesConfig
from ssmjax.dense.config import DenseConfig, MaskRCNNConfig, RetinaNetConfig, UperNetConfig
from ssmjax.dense.geometry import roi_align
from ssmjax.dense.heads import box_head, fpn, mask_head, rpn
from ssmjax.models.config import trunk_config

SAMPLE_FLOPS = 5  # Of a bilinear sample, per channel: four neighbours and its own weight.


@dataclasses.dataclass(frozen=True)
class DenseFlops:
    """Multiply-adds of one image.

    Attributes:
      backbone: of each part of the backbone, adapter included. Pruned tokens count nothing, as in
        the papers; what `conv="frozen"` still computes of them, so that convolutions see no holes,
        is D*E + 49*E of a token in each block, a fifth to a quarter.
      heads: of each part behind it, which pruning leaves alone.
    """

    backbone: Mapping[str, int]
    heads: Mapping[str, int]

    @property
    def total(self) -> int:
        """Of backbone and heads."""
        return sum(self.backbone.values()) + sum(self.heads.values())

    def __str__(self) -> str:
        backbone = "backbone", sum(self.backbone.values())
        rows = [*self.backbone.items(), backbone, *self.heads.items(), ("total", self.total)]
        return "\n".join(f"{part:<18}{format_flops(number):>14}" for part, number in rows)


def flops(config: DenseConfig, image_shape: tuple[int, int], *, masks: int = 100) -> DenseFlops:
    """Count the multiply-adds of testing one image.

    Args:
      config: of the model, as `model.config`.
      image_shape: (height, width) in pixels, both multiples of 32.
      masks: that a Mask R-CNN makes.

    Raises:
      ValueError: sides that are no multiples of 32.
    """
    if any(side < 1 or side % LARGEST_STRIDE for side in image_shape):
        raise ValueError(
            f"image_shape is {tuple(image_shape)}; give height and width as multiples of "
            f"{LARGEST_STRIDE}."
        )
    backbone = _trunk(config.backbone, image_shape)
    if isinstance(config.backbone, AdapterConfig):
        backbone["adapter"] = _adapter(config.backbone, image_shape)
    if isinstance(config.backbone, VimFeaturesConfig):
        fine, coarse = (_cells(image_shape, [stride]) for stride in STRIDES[:2])
        backbone["pyramid"] = (fine + 2 * coarse) * config.backbone.trunk.embed_dim**2
    if isinstance(config, MaskRCNNConfig):
        return DenseFlops(backbone, _mask_rcnn(config, image_shape, masks))
    if isinstance(config, RetinaNetConfig):
        return DenseFlops(backbone, _retinanet(config, image_shape))
    return DenseFlops(backbone, _upernet(config, image_shape))


@count_config.register
def _count_dense(config: MaskRCNNConfig | RetinaNetConfig | UperNetConfig) -> DenseFlops:
    """Of an image of the size that the position embeddings are for."""
    return flops(config, trunk_config(config).image_shape[:2])


def _trunk(config: RangesConfig, image_shape) -> dict[str, int]:
    trunk = dataclasses.replace(config.pruned_trunk(), img_size=image_shape)
    parts = dict(count_config(trunk).parts)
    for uncounted in ("head", "skip"):  # The latter by the published accounting.
        parts.pop(uncounted, None)
    stem = parts.pop("stem", 0) + parts.pop("patch embedding")
    return {"stem": stem, "blocks and scans": sum(parts.values())}


def _adapter(config: AdapterConfig, image_shape) -> int:
    D, P = config.trunk.embed_dim, config.prior_width
    half, fine, cells, coarse = (_cells(image_shape, [s]) for s in (2, 8, 16, 32))
    side = fine + cells + coarse
    stem = half * 9 * (config.trunk.in_channels * P + 2 * P * P)
    stages = 9 * (fine * 2 * P * P + cells * 8 * P * P + coarse * 16 * P * P)
    widths = ((4 * fine, P), (fine, 2 * P), (cells, 4 * P), (coarse, 4 * P))
    projections = sum(number * width * D for number, width in widths)

    def attention(queries: int, values: int, levels: int) -> int:
        places = config.heads * levels * config.points
        samples = queries * levels * config.points * D * SAMPLE_FLOPS
        return values * D * D + queries * (3 * places * D + D * D) + samples

    ffn = side * config.ffn_width * (2 * D + 9)
    injectors = len(config.ends) * attention(cells, side, 3)
    extractors = len(config.ends) + EXTRA_EXTRACTORS
    up = fine * 4 * D * D
    return (
        stem
        + stages
        + projections
        + injectors
        + extractors * (attention(side, cells, 1) + ffn)
        + up
    )


def _neck(D: int, width: int, image_shape, strides: Sequence[int], extra: Sequence[int]) -> int:
    inside = _cells(image_shape, strides) * (D * width + 9 * width * width)
    return inside + _cells(image_shape, extra) * 9 * width * width


def _mask_rcnn(config: MaskRCNNConfig, image_shape, masks: int) -> dict[str, int]:
    D, C, classes = config.backbone.trunk.embed_dim, config.width, config.num_classes
    bins, mask_bins = box_head.BINS**2, mask_head.BINS**2
    box = box_head.CONVS * bins * 9 * C * C
    box += bins * C * config.hidden + config.hidden * (5 * classes + 1)
    mask = mask_head.CONVS * mask_bins * 9 * C * C
    mask += mask_bins * 4 * C * C + mask_head.SIZE**2 * C * classes
    return {
        "neck": _neck(D, C, image_shape, roi_align.STRIDES, ()),
        "RPN": _cells(image_shape, rpn.ANCHORS.strides) * C * (9 * C + 5 * rpn.ANCHORS.per_cell),
        "box head": config.proposals * box,
        "mask head": masks * mask,
    }


def _retinanet(config: RetinaNetConfig, image_shape) -> dict[str, int]:
    D, C, strides = config.backbone.trunk.embed_dim, config.width, retinanet.ANCHORS.strides
    towers = 2 * retinanet.CONVS * C
    outputs = retinanet.ANCHORS.per_cell * (config.num_classes + 4)
    inputs = fpn.LEVELS - 2
    return {
        "neck": _neck(D, C, image_shape, strides[:inputs], strides[inputs:]),
        "head": _cells(image_shape, strides) * 9 * C * (towers + outputs),
    }


def _upernet(config: UperNetConfig, image_shape) -> dict[str, int]:
    """Without the auxiliary head, which testing does not run."""
    D, C = config.backbone.trunk.embed_dim, config.width
    cells = _map_cells(config.backbone, image_shape)
    pools = sum(bins * bins for bins in upernet.POOLS) * D * C
    bottleneck = cells[-1] * 9 * (D + len(upernet.POOLS) * C) * C
    levels = sum(cells[:-1]) * (D * C + 9 * C * C)
    merge = cells[0] * (9 * len(cells) * C * C + C * config.num_classes)
    return {"head": pools + bottleneck + levels + merge}


def _map_cells(config: RangesConfig, image_shape) -> list[int]:
    """How many cells each map of a backbone has."""
    if isinstance(config, VimFeaturesConfig):
        return [_cells(image_shape, [stride]) for stride in STRIDES]
    H, W = config.trunk.grid_of(*image_shape)
    return [H * W] * len(config.ends)


def _cells(image_shape, strides: Sequence[int]) -> int:
    """How many cells the levels with such strides have together."""
    height, width = image_shape
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)

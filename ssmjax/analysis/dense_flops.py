"""Analytic FLOPs of detectors and segmentors, counted as `ssmjax.analysis.flops` does."""

import dataclasses
import functools
from collections.abc import Mapping

from ssmjax.analysis.flops import count
from ssmjax.dense import box_head, mask_head, retinanet
from ssmjax.dense.adapter import EXTRA_EXTRACTORS, AdapterConfig
from ssmjax.dense.config import DenseConfig, MaskRCNNConfig, RetinaNetConfig, UperNetConfig
from ssmjax.dense.objects import DETECTIONS
from ssmjax.dense.ranges import RangesConfig
from ssmjax.dense.upernet import POOLS

PROPOSALS = 1000  # Of an image, that the second stage looks at.
RPN_PER_CELL = 3
_SAMPLE = 5  # Multiply-adds of a sampled value: four neighbours, and its weight.


@dataclasses.dataclass(frozen=True)
class DenseFlops:
    """Multiply-adds of one image.

    Attributes:
      parts: of the backbone's trunk and, in detectors, its adapter; then of neck and heads.
    """

    parts: Mapping[str, int]

    @property
    def backbone(self) -> int:
        """Of what gives the maps."""
        return sum(n for part, n in self.parts.items() if part in ("trunk", "adapter"))

    @property
    def total(self) -> int:
        """Of all parts."""
        return sum(self.parts.values())


def dense_flops(config: DenseConfig, sides: tuple[int, int]) -> DenseFlops:
    """Count the multiply-adds that one image costs, as the papers count: 1000 proposals, 100 masks.

    Args:
      config: of the model; where it prunes, blocks see fewer tokens.
      sides: height and width of the image, multiples of 32 for detectors.
    """
    return DenseFlops({"trunk": _trunk(config.backbone, sides), **_rest(config, sides)})


def _trunk(config: RangesConfig, sides: tuple[int, int]) -> int:
    """Stem and blocks."""
    trunk = dataclasses.replace(config.backbone, img_size=sides, prune=config.prune)
    return sum(n for part, n in count(trunk).parts.items() if part != "head")


def _cells(sides: tuple[int, int], stride: int) -> int:
    return -(-sides[0] // stride) * -(-sides[1] // stride)


def _adapter(config: AdapterConfig, sides: tuple[int, int]) -> int:
    """Side branch and interactions."""
    D, P = config.backbone.embed_dim, config.prior_width
    fine, *levels = (_cells(sides, stride) for stride in (4, 8, 16, 32))
    N, S = levels[1], sum(levels)
    stem = _cells(sides, 2) * 9 * P * (config.backbone.in_channels + 2 * P)
    stages = 9 * P * P * (levels[0] * 2 + levels[1] * 8 + levels[2] * 16)
    projections = D * (fine * P + levels[0] * 2 * P + (levels[1] + levels[2]) * 4 * P)
    injector = _attention(config, queries=N, values=S, levels=3)
    ffn = S * config.ffn_width * (2 * D + 9)
    extractor = _attention(config, queries=S, values=N, levels=1) + ffn
    extractors = len(config.ends) + EXTRA_EXTRACTORS
    up = levels[0] * 4 * D * D
    return stem + stages + projections + len(config.ends) * injector + extractors * extractor + up


def _attention(config: AdapterConfig, *, queries: int, values: int, levels: int) -> int:
    D, points = config.backbone.embed_dim, levels * config.points
    linear = (queries + values) * D * D + queries * D * config.heads * points * 3
    return linear + queries * points * D * _SAMPLE


@functools.singledispatch
def _rest(config, sides: tuple[int, int]) -> dict[str, int]:
    """What is not the trunk; each kind of model registers its own."""
    raise NotImplementedError(f"dense_flops does not count a {type(config).__name__} yet.")


@_rest.register
def _mask_rcnn(config: MaskRCNNConfig, sides: tuple[int, int]) -> dict[str, int]:
    D, W, classes = config.backbone.backbone.embed_dim, config.width, config.num_classes
    cells = sum(_cells(sides, stride) for stride in (4, 8, 16, 32))
    conv = 9 * W * W
    region = box_head.BINS**2 * W
    box = box_head.CONVS * conv * box_head.BINS**2 + region * config.hidden
    box += config.hidden * (classes + 1 + 4 * classes)
    places = mask_head.BINS**2
    mask = places * (mask_head.CONVS * conv + 4 * W * W + 4 * W * classes)
    return {
        "adapter": _adapter(config.backbone, sides),
        "neck": cells * (D * W + conv),
        "RPN": (cells + _cells(sides, 64)) * (conv + W * RPN_PER_CELL * 5),
        "box head": PROPOSALS * box,
        "mask head": DETECTIONS * mask,
    }


@_rest.register
def _retinanet(config: RetinaNetConfig, sides: tuple[int, int]) -> dict[str, int]:
    D, W = config.backbone.backbone.embed_dim, config.width
    *inputs, extra, last = (_cells(sides, stride) for stride in retinanet.STRIDES)
    conv = 9 * W * W
    outputs = retinanet.PER_CELL * (config.num_classes + 4)
    head = 2 * retinanet.CONVS * conv + 9 * W * outputs
    return {
        "adapter": _adapter(config.backbone, sides),
        "neck": sum(inputs) * (D * W + conv) + (extra + last) * conv,
        "head": (sum(inputs) + extra + last) * head,
    }


@_rest.register
def _upernet(config: UperNetConfig, sides: tuple[int, int]) -> dict[str, int]:
    """Without the auxiliary head, which inference leaves out."""
    D, W, maps = config.backbone.backbone.embed_dim, config.width, len(config.backbone.ends)
    cells = _cells(sides, config.backbone.backbone.patch_size)
    pools = sum(bins**2 for bins in POOLS) * D * W
    bottleneck = 9 * (D + len(POOLS) * W) * W
    levels = (maps - 1) * (D * W + 9 * W * W)
    merge = 9 * maps * W * W
    each = bottleneck + levels + merge + W * config.num_classes
    return {"head": pools + cells * each}

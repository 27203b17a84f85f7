"""FLOPs of whole dense models against published figures and sums done by hand."""

import pytest

from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.dense.config import PRESETS
from ssmjax.dense.flops import flops
from ssmjax.models.config import overridden

COCO, ADE = (1280, 800), (2048, 512)


def counted(family, size, image_shape, **changes):
    return flops(overridden(PRESETS[f"{family}_plainmamba_{size}"], changes), image_shape)


# In G: stem; blocks and scans and adapter at 1280 x 800; heads and total of Mask R-CNN; total of
# RetinaNet; blocks and scans, head and total of UperNet at 2048 x 512.
TABLE = {
    "l1": (15.0, 46.3, 40.7, 286.8, 388.8, 253.5, 47.5, 111.5, 174.3),
    "l2": (27.6, 136.9, 87.0, 291.0, 542.4, 403.9, 140.2, 116.3, 284.7),
    "l3": (28.6, 265.4, 110.4, 292.4, 696.8, 557.2, 271.8, 117.9, 419.0),
}


@pytest.mark.parametrize("size", TABLE)
def test_published(size):
    mask = counted("maskrcnn", size, COCO)
    upernet = counted("upernet", size, ADE)
    got = (
        *mask.backbone.values(),
        sum(mask.heads.values()),
        mask.total,
        counted("retinanet", size, COCO).total,
        upernet.backbone["blocks and scans"],
        upernet.heads["head"],
        upernet.total,
    )
    assert [x / 1e9 for x in got] == pytest.approx(TABLE[size], abs=0.06)


@pytest.mark.parametrize("size", TABLE)
@pytest.mark.parametrize(("family", "shape"), [("maskrcnn", COCO), ("upernet", ADE)])
def test_pruning_saves_in_the_blocks_alone(family, size, shape):
    """After half of the blocks, half of the tokens."""
    dense = counted(family, size, shape)
    half = PRESETS[f"{family}_plainmamba_{size}"].backbone.trunk.depth // 2
    pruned = counted(family, size, shape, prune=DensePruneConfig((half,), 0.5))
    assert pruned.heads == dense.heads
    saved = dense.backbone["blocks and scans"] / 4
    early = 9 * 192 * 4096 if size == "l1" else 0  # A block's own convolution is not pruned.
    assert dense.total - pruned.total == pytest.approx(saved, abs=early)


def test_of_each_part_by_hand():
    sizes = {"width": 8, "hidden": 10, "num_classes": 3, "proposals": 2}
    config = overridden(PRESETS["maskrcnn_plainmamba_l1"], sizes)
    got = flops(config, (64, 32), masks=5).heads
    assert got["neck"] == (128 + 32 + 8 + 2) * (192 * 8 + 9 * 64)
    assert got["RPN"] == (128 + 32 + 8 + 2 + 1) * 8 * (9 * 8 + 3 + 12)
    assert got["box head"] == 2 * (4 * 49 * 9 * 64 + 49 * 8 * 10 + 10 * (4 + 12))
    assert got["mask head"] == 5 * (4 * 196 * 9 * 64 + 196 * 4 * 64 + 784 * 8 * 3)


def test_for_people():
    lines = str(counted("retinanet", "l1", COCO)).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("stem", "blocks and scans", "adapter", "backbone", "neck", "head", "total")
    ]
    assert lines[-1].endswith(" 253.467 G")


def test_other_sides_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        counted("upernet", "l1", (512, 500))

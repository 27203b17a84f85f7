"""Official state_dicts of whole detectors and segmentors, entry by entry (folder `downstream`)."""

from collections.abc import Mapping

from ssmjax.convert.dense import adapter_table, features_table, vim_table
from ssmjax.convert.keymap import (
    Entry,
    Family,
    Layout,
    conv,
    conv_norm,
    linear,
    openmmlab_file,
)
from ssmjax.dense import retinanet, upernet
from ssmjax.dense.backbones.vim import VimFeaturesConfig
from ssmjax.dense.config import MaskRCNNConfig, RetinaNetConfig, UperNetConfig
from ssmjax.dense.heads import box_head, fpn, mask_head

_PLACES = box_head.BINS**2
# (out, channels * places) and (places * channels, out): a region's features laid out flat.
_FLAT_REGION = Layout(
    lambda w: w.reshape(len(w), -1, _PLACES).T.reshape(-1, len(w)),
    lambda w: w.reshape(_PLACES, -1, w.shape[1]).T.reshape(w.shape[1], -1),
)


def _mask_rcnn(config: MaskRCNNConfig) -> list[Entry]:
    box, mask = "roi_head.bbox_head", "roi_head.mask_head"
    entries = [
        *adapter_table(config.backbone, "backbone."),
        *_fpn(fpn.LEVELS - 1, 0),
        *conv("rpn_head.rpn_conv", "rpn.tower.convs.0"),
        *conv("rpn_head.rpn_cls", "rpn.objectness"),
        *conv("rpn_head.rpn_reg", "rpn.deltas"),
        *linear(f"{box}.fc_cls", "box_head.classes"),
        *linear(f"{box}.fc_reg", "box_head.deltas"),
    ]
    for i in range(box_head.CONVS):
        entries += _unit(f"{box}.shared_convs.{i}", f"box_head.convs.{i}")
    entries += linear(f"{box}.shared_fcs.0", "box_head.hidden", _FLAT_REGION)
    for i in range(mask_head.CONVS):
        entries += conv(f"{mask}.convs.{i}.conv", f"mask_head.tower.convs.{i}")
    entries += conv(f"{mask}.upsample", "mask_head.up")
    return entries + conv(f"{mask}.conv_logits", "mask_head.masks")


def _retinanet(config: RetinaNetConfig) -> list[Entry]:
    entries = adapter_table(config.backbone, "backbone.") + _fpn(3, fpn.LEVELS - 3)
    for theirs, ours in (("cls", "class"), ("reg", "box")):
        for i in range(retinanet.CONVS):
            tower = f"head.{ours}_tower.convs.{i}"
            entries += conv(f"bbox_head.{theirs}_convs.{i}.conv", tower)
    entries += conv("bbox_head.retina_cls", "head.classes")
    return entries + conv("bbox_head.retina_reg", "head.deltas")


def _upernet(config: UperNetConfig) -> list[Entry]:
    if isinstance(config.backbone, VimFeaturesConfig):
        entries = vim_table(config.backbone, "backbone.")
    else:
        entries = features_table(config.backbone, "backbone.")
    entries += conv("decode_head.conv_seg", "head.classes")
    for i in range(len(upernet.POOLS)):
        entries += _unit(f"decode_head.psp_modules.{i}.1", f"head.pools.{i}")
    entries += _unit("decode_head.bottleneck", "head.bottleneck")
    for theirs, ours in (("lateral_convs", "laterals"), ("fpn_convs", "outputs")):
        for i in range(len(config.backbone.ends) - 1):
            entries += _unit(f"decode_head.{theirs}.{i}", f"head.{ours}.{i}")
    entries += _unit("decode_head.fpn_bottleneck", "head.merge")
    entries += conv("auxiliary_head.conv_seg", "auxiliary.classes")
    return entries + _unit("auxiliary_head.convs.0", "auxiliary.unit")


def _fpn(inputs: int, extra: int) -> list[Entry]:
    units = [(f"lateral_convs.{i}", f"laterals.{i}") for i in range(inputs)]
    units += [(f"fpn_convs.{i}", f"outputs.{i}") for i in range(inputs)]
    units += [(f"fpn_convs.{inputs + i}", f"extra.{i}") for i in range(extra)]
    return [e for a, b in units for e in _unit(f"neck.{a}", f"neck.{b}")]


def _unit(theirs: str, ours: str) -> list[Entry]:
    """Of a `ssmjax.layers.conv_norm.ConvNorm`."""
    return conv_norm(f"{theirs}.conv", f"{theirs}.bn", ours)


FAMILIES: Mapping[type, Family] = {
    MaskRCNNConfig: Family(_mask_rcnn, openmmlab_file, "roi_head.mask_head.conv_logits.bias"),
    RetinaNetConfig: Family(
        _retinanet, openmmlab_file, "bbox_head.retina_cls.bias", retinanet.ANCHORS.per_cell
    ),
    UperNetConfig: Family(_upernet, openmmlab_file, "decode_head.conv_seg.bias"),
}

"""Configs of whole detectors and segmentors, and the published ones."""

import dataclasses
from collections.abc import Mapping

from ssmjax.dense.backbones.adapter import AdapterConfig
from ssmjax.dense.backbones.ranges import DensePruneConfig, RangesConfig
from ssmjax.dense.backbones.vim import PatchVimConfig, VimFeaturesConfig
from ssmjax.models import plain_mamba, vim
from ssmjax.pruning.config import check_whole


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """What every detector has.

    Attributes:
      backbone: its sizes, and where to prune.
      num_classes: of objects.
      width: channels of the feature pyramid and the heads.

    Raises:
      ValueError: naming the field and its valid choices.
    """

    backbone: AdapterConfig
    num_classes: int = 80
    width: int = 256

    def __post_init__(self) -> None:
        check_whole(self, "num_classes", "width")


@dataclasses.dataclass(frozen=True)
class RetinaNetConfig(DetectorConfig):
    """Everything that defines a RetinaNet."""


@dataclasses.dataclass(frozen=True)
class MaskRCNNConfig(DetectorConfig):
    """Everything that defines a Mask R-CNN.

    Attributes:
      hidden: outputs of the box head's first linear layer.
      proposals: regions of an image that the first stage gives the second, of as many candidates
        of each level; in training of twice as many.
      samples: regions of an image that are learned from, at most a quarter with an object.
    """

    hidden: int = 1024
    proposals: int = 1000
    samples: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "hidden", "proposals", "samples")
        if self.samples < 4:
            raise ValueError(f"samples is {self.samples}; of fewer than 4 none has an object.")


@dataclasses.dataclass(frozen=True)
class UperNetConfig:
    """Everything that defines an UperNet.

    Attributes:
      backbone: its sizes, and where to prune.
      num_classes: of pixels.
      width: channels of the head.
      auxiliary_width: channels of the auxiliary head.
      auxiliary_map: which of the backbone's maps that sees, counted from the last, which is -1.
      dropout: share of the channels that training drops before the classes.

    Raises:
      ValueError: naming the field and its valid choices.
    """

    backbone: RangesConfig
    num_classes: int = 150
    width: int = 512
    auxiliary_width: int = 256
    auxiliary_map: int = -1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_whole(self, "num_classes", "width", "auxiliary_width")
        maps = len(self.backbone.ends)
        if self.auxiliary_map not in range(-maps, 0):
            raise ValueError(
                f"auxiliary_map is {self.auxiliary_map!r}; the backbone has {maps} maps, so it "
                f"must be from -{maps} to -1."
            )
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; it must be in [0, 1).")


DenseConfig = RetinaNetConfig | MaskRCNNConfig | UperNetConfig

# Trunk, rate of drop path, heads of the adapter's attention.
_PLAIN_MAMBA = (
    ("plainmamba_l1", 0.1, 6),
    ("plainmamba_l2", 0.2, 6),
    ("plainmamba_l3", 0.3, 8),
)
# What maps show of a block.
_VIM = {"vim_tiny": "mixer", "vim_small": "sum"}
_PATCHES = "_patch16_224"
_RANGES = 4


def _presets() -> Mapping[str, DenseConfig]:
    presets: dict[str, DenseConfig] = {}
    for name, rate, heads in _PLAIN_MAMBA:
        trunk = dataclasses.replace(plain_mamba.PRESETS[name], drop_path_rate=rate)
        ends = _ends(trunk.depth)
        adapter = AdapterConfig(trunk, ends, heads=heads)
        presets[f"maskrcnn_{name}"] = MaskRCNNConfig(adapter)
        presets[f"retinanet_{name}"] = RetinaNetConfig(adapter)
        presets[f"upernet_{name}"] = UperNetConfig(RangesConfig(trunk, ends))
    for name, shown in _VIM.items():
        width = vim.PRESETS[f"{name}{_PATCHES}"].embed_dim
        trunk = PatchVimConfig(embed_dim=width, img_size=512, drop_path_rate=0.1)
        features = VimFeaturesConfig(trunk, _ends(trunk.depth), shown=shown)
        presets[f"upernet_{name}"] = UperNetConfig(features, width=width, auxiliary_map=-2)
    return presets


def _ends(depth: int) -> tuple[int, ...]:
    """The last block of each of `_RANGES` equal ranges."""
    part = depth // _RANGES
    return tuple(range(part, depth + 1, part))


# The official configs and scripts (github.com/ChenhongyiYang/PlainMamba, folder downstream;
# github.com/hustvl/Vim, folder seg).
PRESETS: Mapping[str, DenseConfig] = _presets()

# The paper prunes them as it does classifiers.
PAPER: Mapping[str, DensePruneConfig] = {
    name: DensePruneConfig(prune.after_blocks, prune.keep_ratio, conv=conv)
    for name in PRESETS
    for papers, conv in ((plain_mamba.PAPER, "frozen"), (vim.PAPER, "compact"))
    for trunk, prune in papers.items()
    if name.endswith(trunk.removesuffix(_PATCHES))
}

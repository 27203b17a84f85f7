"""The models of the dense tasks by name, as `ssmjax.registry` finds them, and by config."""

from collections.abc import Mapping
from pathlib import Path

from flax import nnx

from ssmjax import registry
from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.dense.config import (
    PAPER,
    PRESETS,
    DenseConfig,
    MaskRCNNConfig,
    RetinaNetConfig,
    UperNetConfig,
)
from ssmjax.dense.mask_rcnn import MaskRCNN
from ssmjax.dense.retinanet import RetinaNet
from ssmjax.dense.upernet import UperNet

DenseModel = MaskRCNN | RetinaNet | UperNet

_MODELS = {MaskRCNNConfig: MaskRCNN, RetinaNetConfig: RetinaNet, UperNetConfig: UperNet}

ENTRIES: Mapping[str, registry.Entry] = {
    name: registry.Entry(_MODELS[type(config)], config, PAPER.get(name), DensePruneConfig)
    for name, config in PRESETS.items()
}


def list_models() -> list[str]:
    """The names `create_model` takes, sorted."""
    return sorted(ENTRIES)


def create_model(
    name: str | None = None, *, weights: str | Path | None = None, **arguments
) -> DenseModel:
    """`ssmjax.create_model` where no classifier will do. Raises ValueError for those too."""
    chosen = registry.one_of(list_models(), name, weights)
    return registry.create_model(chosen, weights=weights, **arguments)


def build(config: DenseConfig, *, seed: int = 0) -> DenseModel:
    """The model of a config, with fresh parameters."""
    return _MODELS[type(config)](config, rngs=nnx.Rngs(seed))  # pyright: ignore[reportArgumentType]

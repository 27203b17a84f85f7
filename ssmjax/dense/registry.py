"""`create_model` and `list_models` of the dense tasks: every detector and segmentor by name."""

import dataclasses
from pathlib import Path
from typing import Literal

from flax import nnx

from ssmjax.dense.config import (
    PAPER,
    PRESETS,
    DenseConfig,
    MaskRCNNConfig,
    RetinaNetConfig,
    UperNetConfig,
    options,
    overridden,
)
from ssmjax.dense.mask_rcnn import MaskRCNN
from ssmjax.dense.ranges import DensePruneConfig
from ssmjax.dense.retinanet import RetinaNet
from ssmjax.dense.upernet import UperNet
from ssmjax.models.config import BackboneConfig
from ssmjax.registry import wanted
from ssmjax.weights import load_weights

DenseModel = MaskRCNN | RetinaNet | UperNet

_MODELS = {MaskRCNNConfig: MaskRCNN, RetinaNetConfig: RetinaNet, UperNetConfig: UperNet}


def list_models() -> list[str]:
    """The names `create_model` takes, sorted."""
    return sorted(PRESETS)


def official_grids(kind: type[BackboneConfig]) -> set[tuple[int, int]]:
    """(H, W) patches of the position embeddings of models whose trunks' configs are of a kind."""
    trunks = [config.backbone.backbone for config in PRESETS.values()]
    return {config.grid for config in trunks if type(config) is kind}


def create_model(
    name: str | None = None,
    *,
    seed: int = 0,
    prune: DensePruneConfig | Literal["paper", "stored"] | None = "stored",
    weights: str | Path | None = None,
    **overrides,
) -> DenseModel:
    """A model, with fresh parameters or with those of a weight file.

    Args:
      name: one of `list_models()`; None takes the one that `weights` names.
      seed: of the initialisation.
      prune: where and how to prune; None is the dense model; "paper" is the published schedule of
        that model's classifier; "stored" is what the weight file says, dense without one. It adds
        no parameters.
      weights: a file from `ssmjax.weights.save_weights`; its config is where the overrides start.
        Position embeddings are resized to those of another `img_size`.
      **overrides: any option of the model's config or its backbone's, as of
        `ssmjax.dense.config.options`, such as `num_classes`, `width`, `depth` and `ends`.

    Raises:
      ValueError: an unknown name or option, or a value that cannot be, with the valid choices; a
        weight file that cannot be read or does not fit.
    """
    known = {name: set(options(config)) for name, config in PRESETS.items()}
    wish = wanted(name, weights, prune, overrides, known, PAPER, DensePruneConfig)
    config = overridden(PRESETS[wish.name], {**wish.options, "prune": wish.prune})
    if weights is None:
        return build(config, seed=seed)
    model = nnx.eval_shape(lambda: build(config))
    made_for = overridden(PRESETS[wish.name], wish.stored)
    load_weights(weights, model, made_for.backbone.backbone)
    return model


def build(config: DenseConfig, *, seed: int = 0) -> DenseModel:
    """The model of a config, with fresh parameters."""
    return _MODELS[type(config)](config, rngs=nnx.Rngs(seed))  # pyright: ignore[reportArgumentType]


def config_overrides(name: str, config: DenseConfig) -> dict:
    """The options of `config` that differ from those registered under `name`."""
    mine, theirs = options(config), options(PRESETS[name])
    changed = {option: mine[option] for option in mine if mine[option] != theirs[option]}
    if changed.get("prune") is not None:
        changed["prune"] = dataclasses.asdict(changed["prune"])
    return changed

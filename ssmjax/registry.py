"""`create_model` and `list_models`: every model by name."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flax import nnx

from ssmjax.models import plain_mamba, vim, vit
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import BackboneConfig
from ssmjax.pruning.config import PruneConfig
from ssmjax.weights import load_weights, read_metadata

_PRESETS: Mapping[str, tuple[Any, BackboneConfig]] = {
    name: (model, config)
    for model, presets in (
        (vim.Vim, vim.PRESETS),
        (plain_mamba.PlainMamba, plain_mamba.PRESETS),
        (vit.ViT, vit.PRESETS),
    )
    for name, config in presets.items()
}
_PAPER = {**vim.PAPER, **plain_mamba.PAPER, **vit.PAPER}


def list_models() -> list[str]:
    """The names `create_model` takes, sorted."""
    return sorted(_PRESETS)


def official_grids(kind: type[BackboneConfig]) -> set[tuple[int, int]]:
    """(H, W) patches of the registered models whose configs are of a kind."""
    return {config.grid for _, config in _PRESETS.values() if type(config) is kind}


def create_model(
    name: str | None = None,
    *,
    seed: int = 0,
    prune: PruneConfig | Literal["paper", "stored"] | None = "stored",
    weights: str | Path | None = None,
    **overrides,
) -> Backbone:
    """A model, with fresh parameters or with those of a weight file.

    Args:
      name: one of `list_models()`; None takes the one that `weights` names.
      seed: of the initialisation.
      prune: where and how to prune; None is the dense model; "paper" is the published schedule of
        that model; "stored" is what the weight file says, dense without one. It adds no parameters.
      weights: a file from `ssmjax.weights.save_weights`; its config is where the overrides start.
        Position embeddings are resized to another `img_size`; another `num_classes` gets a fresh
        head.
      **overrides: any field of the model's config, such as `img_size`, `depth` or `num_classes`.

    Raises:
      ValueError: an unknown name or field, or a value that cannot be, with the valid choices; a
        weight file that cannot be read or does not fit.
    """
    fields = {
        name: {field.name for field in dataclasses.fields(config)}
        for name, (_, config) in _PRESETS.items()
    }
    wish = wanted(name, weights, prune, overrides, fields, _PAPER, PruneConfig)
    model_class, preset = _PRESETS[wish.name]
    config = dataclasses.replace(preset, prune=wish.prune, **wish.options)
    if weights is None:
        return model_class(config, rngs=nnx.Rngs(seed))
    made_for = dataclasses.replace(preset, **wish.stored)

    def fresh() -> Backbone:
        return model_class(config, rngs=nnx.Rngs(seed))

    model = fresh() if config.num_classes != made_for.num_classes else nnx.eval_shape(fresh)
    load_weights(weights, model, made_for)
    return model


class Wanted(NamedTuple):
    """What a call of `create_model` asks for.

    Attributes:
      name: of a registered model.
      prune: how to prune, or None.
      options: those given, and of a weight file's those that were not.
      stored: the weight file's.
    """

    name: str
    prune: Any
    options: dict[str, Any]
    stored: dict[str, Any]


def wanted(
    name: Any,
    weights: str | Path | None,
    prune: Any,
    overrides: Mapping[str, Any],
    options: Mapping[str, Collection[str]],
    schedules: Mapping[str, PruneConfig],
    kind: type[PruneConfig],
) -> Wanted:
    """Check and complete the arguments of a `create_model`.

    Args:
      name, weights, prune, overrides: its arguments.
      options: of each registered model, by name.
      schedules: the published ones, by name.
      kind: what `prune` is an instance of.

    Raises:
      ValueError: as `create_model`.
    """
    stored: dict[str, Any] = {}
    if weights is not None:
        metadata = read_metadata(weights)
        if name not in (None, metadata.model):
            raise ValueError(
                f"{weights} holds a {metadata.model}, not a {name}; leave the name out."
            )
        name, stored = metadata.model, dict(metadata.config)
        stored_prune = stored.pop("prune", None)
        if isinstance(prune, str) and prune == "stored" and stored_prune is not None:
            prune = _stored_prune(weights, stored_prune, kind)
    name = registered(name, sorted(options))
    known = set(options[name]) - {"prune"}
    strange = sorted(set(stored) - known)
    if strange:
        raise ValueError(
            f"{weights} describes its model by {', '.join(strange)}, which this version does not "
            "know; make it again with the version at hand."
        )
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; choose among {', '.join(sorted(known))}."
        )
    if isinstance(prune, str) and prune in ("stored", "paper"):
        prune = None if prune == "stored" else _published(name, schedules)
    if prune is not None and not isinstance(prune, kind):
        raise ValueError(f'prune is {prune!r}; give a {kind.__name__}, "paper", "stored" or None.')
    return Wanted(name, prune, {**stored, **overrides}, stored)


def _stored_prune(weights: str | Path, fields: Any, kind: type[PruneConfig]) -> PruneConfig:
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(
            f"{weights} describes its pruning in a way that this version does not know ({error}); "
            "create the model with another prune."
        ) from error


def registered(name: Any, names: Sequence[str]) -> str:
    """The name of a model, if it is one of `names`. Raises ValueError if not."""
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"There is no model {name!r}; choose one of {', '.join(names)}.{hint}")
    return name


def published_schedule(name: str) -> PruneConfig:
    """Where and how the paper prunes a model. Raises ValueError for models that it does not."""
    return _published(name, _PAPER)


def _published(name: str, schedules: Mapping[str, PruneConfig]) -> PruneConfig:
    if name not in schedules:
        known = ", ".join(schedules)
        raise ValueError(f"The paper has no schedule for {name}; it has for {known}.")
    return schedules[name]


def config_overrides(name: str, config: BackboneConfig) -> dict:
    """The fields of `config` that differ from those registered under `name`."""
    _, preset = _PRESETS[name]
    mine, theirs = dataclasses.asdict(config), dataclasses.asdict(preset)
    return {field: mine[field] for field in mine if mine[field] != theirs[field]}

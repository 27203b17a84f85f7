"""`create_model` and `list_models`: every model by name, classifiers and those of dense tasks."""

import dataclasses
import difflib
import fnmatch
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from flax import nnx

from ssmjax.models import plain_mamba, vim, vit
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import BackboneConfig, options, overridden, trunk_config
from ssmjax.pruning.config import PruneConfig
from ssmjax.weights import load_weights, read_metadata


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model that has a name.

    Attributes:
      model: its class, which takes a config and `rngs`.
      config: its sizes and options; nothing is pruned.
      schedule: where and how the paper prunes it, or None.
      prunes: what the `prune` of its config is an instance of.
    """

    model: Callable[..., Any]
    config: Any
    schedule: PruneConfig | None = None
    prunes: type[PruneConfig] = PruneConfig


_CLASSIFIERS: Mapping[str, Entry] = {
    name: Entry(model, config, family.PAPER.get(name))
    for family, model in ((vim, vim.Vim), (plain_mamba, plain_mamba.PlainMamba), (vit, vit.ViT))
    for name, config in family.PRESETS.items()
}
# The other models, and the modules whose ENTRIES they are in, imported when one is asked for.
_ELSEWHERE: Mapping[str, str] = dict.fromkeys(
    (
        *(f"{kind}_{trunk}" for kind in ("maskrcnn", "retinanet") for trunk in plain_mamba.PRESETS),
        *(f"upernet_{trunk}" for trunk in (*plain_mamba.PRESETS, "vim_tiny", "vim_small")),
    ),
    "ssmjax.dense.registry",
)


def list_models(filter: str = "*") -> list[str]:
    """The names `create_model` takes: classifiers, then models of dense tasks, each sorted.

    Args:
      filter: of the names; `*` and `?` stand for any characters and any one, as in "*plainmamba*".
    """
    return fnmatch.filter([*sorted(_CLASSIFIERS), *sorted(_ELSEWHERE)], filter)


def create_model(
    name: str | None = None,
    *,
    seed: int = 0,
    prune: PruneConfig | Literal["paper", "stored"] | None = "stored",
    weights: str | Path | None = None,
    **overrides,
) -> Any:
    """A model, with fresh parameters or with those of a weight file.

    Args:
      name: one of `list_models()`; None takes the one that `weights` names.
      seed: of the initialisation.
      prune: where and how to prune, in models of dense tasks a `DensePruneConfig`; None prunes
        nothing; "paper" is the published schedule of the model, or of its classifier; "stored" is
        what the weight file says, and nothing without one. It adds no parameters.
      weights: a file from `ssmjax.weights.save_weights`; its config is where the overrides start.
        Position embeddings are resized to another `img_size`; in a classifier another
        `num_classes` gets a fresh head.
      **overrides: any option of the model's config or that of its backbone, such as `img_size`,
        `depth`, `num_classes` or `ends`.

    Returns:
      A `ssmjax.Backbone`, or a `ssmjax.dense.registry.DenseModel`.

    Raises:
      ValueError: an unknown name or option, or a value that cannot be, with the valid choices; a
        weight file that cannot be read or does not fit.
    """
    name = one_of(list_models(), name, weights)
    stored: dict[str, Any] = {}
    if weights is not None:
        metadata = read_metadata(weights)
        if name != metadata.model:
            raise ValueError(
                f"{weights} holds a {metadata.model}, not a {name}; leave the name out."
            )
        stored = dict(metadata.config)
    published = entry(name)
    stored_prune = stored.pop("prune", None)
    known = set(options(published.config)) - {"prune"}
    if strange := sorted(set(stored) - known):
        raise ValueError(
            f"{weights} describes its model by {', '.join(strange)}, which this version does not "
            "know; make it again with the version at hand."
        )
    if unknown := sorted(set(overrides) - known):
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; choose among {', '.join(sorted(known))}."
        )
    if prune == "paper":
        prune = published_schedule(name)
    elif prune == "stored":
        prune = None if stored_prune is None else _stored(weights, stored_prune, published.prunes)
    elif prune is not None and not isinstance(prune, published.prunes):
        kind = published.prunes.__name__
        raise ValueError(f'prune is {prune!r}; give a {kind}, "paper", "stored" or None.')
    config = overridden(published.config, {**stored, **overrides, "prune": prune})

    def fresh() -> nnx.Module:
        return published.model(config, rngs=nnx.Rngs(seed))

    if weights is None:
        return fresh()
    made_for = trunk_config(overridden(published.config, stored))
    keeps_head = made_for.num_classes == trunk_config(config).num_classes
    model = nnx.eval_shape(fresh) if keeps_head else fresh()
    load_weights(weights, model, made_for)
    return model


def create_classifier(
    name: str | None = None, *, weights: str | Path | None = None, **arguments
) -> Backbone:
    """`create_model` where no model of a dense task will do. Raises ValueError for those too."""
    return create_model(one_of(sorted(_CLASSIFIERS), name, weights), weights=weights, **arguments)


def one_of(names: Sequence[str], name: Any, weights: str | Path | None) -> str:
    """The name of a model, or of the one in a weight file, if it is one of `names`.

    Raises:
      ValueError: it is none of them, or the file cannot be read.
    """
    if name is None and weights is not None:
        name = read_metadata(weights).model
    if isinstance(name, str) and name in names:
        return name
    if name in list_models():
        wrong = f"{name} is a model of another kind"
    else:
        wrong = f"There is no model {name!r}"
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(f"{wrong}; choose one of {', '.join(names)}.{hint}")


def entry(name: str) -> Entry:
    """What is registered under a name. Raises ValueError for a name that is none."""
    one_of(list_models(), name, None)
    if name in _CLASSIFIERS:
        return _CLASSIFIERS[name]
    return importlib.import_module(_ELSEWHERE[name]).ENTRIES[name]


def published_schedule(name: str) -> PruneConfig:
    """Where and how the paper prunes a model. Raises ValueError for models that it does not."""
    schedule = entry(name).schedule
    if schedule is None:
        known = ", ".join(known for known, model in _CLASSIFIERS.items() if model.schedule)
        raise ValueError(f"The paper has no schedule for {name}; it has for {known}.")
    return schedule


def config_overrides(name: str, config: Any) -> dict[str, Any]:
    """The options of `config` that differ from those registered under `name`, as JSON has them."""
    mine, theirs = options(config), options(entry(name).config)
    changed = {option: mine[option] for option in mine if mine[option] != theirs[option]}
    if changed.get("prune") is not None:
        changed["prune"] = dataclasses.asdict(changed["prune"])
    return changed


def official_grids(config: Any) -> set[tuple[int, int]]:
    """(H, W) patches that position embeddings are for, in the registered models like a config's.

    Those are of the same kind of task, classification or a dense one, and the same kind of trunk.
    """
    names = _CLASSIFIERS if isinstance(config, BackboneConfig) else _ELSEWHERE
    trunks = [trunk_config(entry(name).config) for name in names]
    return {trunk.grid for trunk in trunks if type(trunk) is type(trunk_config(config))}


def _stored(weights: Any, fields: Any, kind: type[PruneConfig]) -> PruneConfig:
    """How a weight file says that its model prunes."""
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(
            f"{weights} describes its pruning in a way that this version does not know ({error}); "
            "create the model with another prune."
        ) from error

"""`create_model` and `list_models`: every model by name."""

import dataclasses
import difflib

from flax import nnx

from ssmjax.models import vim
from ssmjax.pruning.config import PruneConfig

_PRESETS = {name: (vim.Vim, config) for name, config in vim.PRESETS.items()}


def list_models() -> list[str]:
    """The names `create_model` takes, sorted."""
    return sorted(_PRESETS)


def create_model(
    name: str, *, seed: int = 0, prune: PruneConfig | None = None, **overrides
) -> vim.Vim:
    """A model with fresh parameters.

    Args:
      name: one of `list_models()`.
      seed: of the initialisation.
      prune: where and how to prune; None is the dense model. It adds no parameters.
      **overrides: any field of the model's config, such as `img_size`, `depth` or `num_classes`.

    Raises:
      ValueError: an unknown name or field, or a value that cannot be, with the valid choices.
    """
    if name not in _PRESETS:
        close = difflib.get_close_matches(name, _PRESETS, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"There is no model {name!r}; choose one of {', '.join(list_models())}.{hint}")
    model, config = _PRESETS[name]
    fields = {field.name for field in dataclasses.fields(config)}
    unknown = sorted(set(overrides) - fields)
    if unknown:
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; choose among {', '.join(sorted(fields))}."
        )
    return model(dataclasses.replace(config, prune=prune, **overrides), rngs=nnx.Rngs(seed))

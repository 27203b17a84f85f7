"""Between a model and an official state_dict: all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax.convert import plain_mamba, vim, vit
from ssmjax.convert.keymap import Entry, Family
from ssmjax.convert.positions import on_grid, patches_of, source_grid
from ssmjax.fitting import FLOATS, KIND, MisfitError, in_dtype, unwrapped
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import BackboneConfig
from ssmjax.models.plain_mamba import PlainMambaConfig
from ssmjax.models.vim import VimConfig
from ssmjax.models.vit import ViTConfig
from ssmjax.pruning.config import whole_number
from ssmjax.registry import official_grids
from ssmjax.weights import flat_params

if TYPE_CHECKING:
    from ssmjax.dense.config import DenseConfig
    from ssmjax.dense.registry import DenseModel

    Model = Backbone | DenseModel

_FAMILIES: Mapping[type, Family] = {
    VimConfig: vim.FAMILY,
    PlainMambaConfig: plain_mamba.FAMILY,
    ViTConfig: vit.FAMILY,
}


def load_torch_state_dict(
    model: Backbone | DenseModel,
    state_dict: Mapping[str, Any],
    *,
    grid: tuple[int, int] | None = None,
) -> None:
    """Fill `model` in place from an official state_dict.

    Position embeddings of another grid than the model's are resized.

    Args:
      model: from `ssmjax.create_model`, with the sizes of the checkpoint.
      state_dict: {official name: array in PyTorch's layout}; floating-point arrays of 16, 32 or 64
        bits become float32. A prefix before all names, such as "module." or "model.", goes where
        they fit without it.
      grid: (H, W), rows and columns of the patches that the position embeddings are of. None: as
        those of the published models, or as the model's, where there are as many; where this leaves
        two ways or none, it is not guessed.

    Raises:
      ValueError: there is no conversion for such a model, or the state_dict is of a variant that
        is not built here, or one error (`ssmjax.fitting.MisfitError`, whose `problems` are all of
        them) for every missing and unused name, wrong shape, kind of numbers and value that is not
        finite, a grid that is not known, and every variable that would be left unfilled. The model
        is then unchanged.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"state_dict is a {type(state_dict).__name__}; give a dict of official name to array."
        )
    if grid is not None and (len(grid) != 2 or None in map(whole_number, grid) or min(grid) < 1):
        raise ValueError(f"grid is {grid}; give rows and columns of patches, as (14, 14).")
    entries = table(model.config)
    state, prefix = unwrapped(state_dict, [entry.theirs for entry in entries])
    for name, reason in family(model.config).refused.items():
        if name in state:
            raise ValueError(f"The state_dict holds {name}: {reason}.")
    fill(model, entries, state, grid=grid, prefix=prefix)


def fill(
    model: nnx.Module,
    entries: Sequence[Entry],
    state_dict: Mapping[str, Any],
    *,
    grid: tuple[int, int] | None = None,
    prefix: str = "",
) -> None:
    """Fill `model` in place from a state_dict whose names and places are `entries`.

    Args:
      model, state_dict, grid: as of `load_torch_state_dict`.
      entries: of a table.
      prefix: what the names were freed of before, for the error.

    Raises:
      ValueError: as `load_torch_state_dict` does for what is missing, unused or does not fit.
    """
    shapes = shapes_of(model, entries)
    leaves = flat_params(model)
    filled = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    problems = []
    for entry in entries:
        if entry.theirs not in state_dict:
            problems.append(f"missing {entry.theirs}")
            continue
        target = filled[entry.ours]
        target = target if entry.block is None else target[entry.block, ...]
        try:
            array = _fitted(model, entry, state_dict[entry.theirs], target.dtype, grid)
            if array.shape != shapes[entry.theirs]:
                raise ValueError(f"has shape {array.shape}, not {shapes[entry.theirs]}")
        except ValueError as error:
            problems.append(f"{entry.theirs} {error}")
        else:
            target[...] = entry.layout.ours(array)
    problems += [f"unused {name}" for name in state_dict if name not in shapes]
    problems += [f"unfilled {name}" for name in sorted(set(leaves) - {e.ours for e in entries})]
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)} with the state_dict"
        raise MisfitError(count, problems, prefix)
    for name, leaf in leaves.items():
        leaf.set_value(jnp.asarray(filled[name]))


def to_torch_state_dict(model: Model) -> dict[str, np.ndarray]:
    """The official state_dict of a model: names, order, layout and dtypes as the official code's.

    Raises:
      ValueError: there is no conversion for such a model.
    """
    arrays = {name: np.asarray(leaf[...]) for name, leaf in flat_params(model).items()}
    state_dict = {}
    for entry in table(model.config):
        array = arrays[entry.ours] if entry.block is None else arrays[entry.ours][entry.block]
        dtype = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        state_dict[entry.theirs] = np.array(entry.layout.theirs(array), dtype, order="C")
    return state_dict


def family(config: BackboneConfig | DenseConfig) -> Family:
    """How the official code stores models of that config. Raises ValueError if there is none."""
    if type(config) in _FAMILIES:
        return _FAMILIES[type(config)]
    # Imported late: whoever converts a classifier loads nothing of the dense tasks.
    from ssmjax.convert.dense_heads import FAMILIES

    if type(config) not in FAMILIES:
        raise ValueError(
            f"There is no conversion for a {type(config).__name__}; there is for "
            f"{', '.join(known.__name__ for known in (*_FAMILIES, *FAMILIES))}."
        )
    return FAMILIES[type(config)]


def table(config: BackboneConfig | DenseConfig) -> list[Entry]:
    """Every entry of the official state_dict, in official order. Raises ValueError as `family`."""
    return family(config).table(config)


def official_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """{official name: shape in PyTorch's layout}, in official order.

    The model may be what `nnx.eval_shape` makes of one.
    """
    return shapes_of(model, table(model.config))


def shapes_of(model: nnx.Module, entries: Sequence[Entry]) -> dict[str, tuple[int, ...]]:
    """`official_shapes` of a model whose names and places are `entries`."""
    leaves = flat_params(model)
    shapes = {}
    for entry in entries:
        ours = leaves[entry.ours].shape[entry.block is not None :]
        shapes[entry.theirs] = entry.layout.theirs(np.broadcast_to(0, ours)).shape
    return shapes


def _fitted(
    model: Any, entry: Entry, value: Any, dtype: Any, grid: tuple[int, int] | None
) -> np.ndarray:
    """What a state_dict has for an entry, in a dtype and for the model's grid.

    Raises:
      ValueError: what is wrong with it, without its name.
    """
    array = in_dtype(entry.ours, _array(value), dtype)
    config = entry.positions
    if config is None or (patches := patches_of(array.shape, config)) is None:
        return array
    try:
        source = source_grid(patches, config, grid, official_grids(model.config))
    except ValueError as error:
        expected = f", not {(1, config.length, config.embed_dim)}"
        unlike = expected if array.shape[1] != config.length else ""
        raise ValueError(f"has shape {array.shape}{unlike}, and {error}") from error
    return on_grid(array, source, config)


def _array(value: Any) -> np.ndarray:
    """`value` as numpy, tensors of PyTorch too. Raises ValueError for what numpy lacks."""
    kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
    try:
        if hasattr(value, "detach"):
            # numpy knows no bfloat16; what is refused below need not be changed.
            value = value.detach().float() if kind in FLOATS else value.detach()
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        known = kind in ("", *FLOATS)
        raise ValueError("is no array" if known else f"holds {kind}, not {KIND}") from error

"""Between a model and an official state_dict: all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax.convert import plain_mamba, vim, vit
from ssmjax.convert.keymap import Entry, Family
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import BackboneConfig
from ssmjax.models.plain_mamba import PlainMambaConfig
from ssmjax.models.vim import VimConfig
from ssmjax.models.vit import ViTConfig
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


def load_torch_state_dict(model: Backbone | DenseModel, state_dict: Mapping[str, Any]) -> None:
    """Fill `model` in place from an official state_dict.

    Position embeddings of a square grid with another number of patches are resized to the model's.

    Args:
      model: from `ssmjax.create_model` or `ssmjax.dense.registry.create_model`, with the sizes of
        the checkpoint.
      state_dict: {official name: array in PyTorch's layout}; floating-point arrays of any width
        become float32.

    Raises:
      ValueError: there is no conversion for such a model, or the state_dict is of a variant that
        is not built here, or one error that lists every missing and unused name, wrong shape, kind
        of numbers and value that is not finite, and every variable that would be left unfilled.
        The model is then unchanged.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"state_dict is a {type(state_dict).__name__}; give a dict of official name to array."
        )
    for name, reason in family(model.config).refused.items():
        if name in state_dict:
            raise ValueError(f"The state_dict holds {name}: {reason}.")
    fill(model, table(model.config), state_dict)


def fill(model: nnx.Module, entries: Sequence[Entry], state_dict: Mapping[str, Any]) -> None:
    """Fill `model` in place from a state_dict whose names and places are `entries`.

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
            given = _array(state_dict[entry.theirs])
        except (ValueError, TypeError, RuntimeError):
            problems.append(f"{entry.theirs} is no array")
            continue
        problem = _fill(target, given, entry, shapes[entry.theirs])
        problems += [f"{entry.theirs} {problem}"] if problem else []
    problems += [f"unused {name}" for name in state_dict if name not in shapes]
    problems += [f"unfilled {name}" for name in sorted(set(leaves) - {e.ours for e in entries})]
    if problems:
        raise ValueError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} with the state_dict: "
            f"{'; '.join(problems)}."
        )
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
    # Here, not above: classifiers need nothing of it.
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
    """{official name: shape in PyTorch's layout}, in official order; of shapes alone, too.

    Args:
      model: a model, or what `nnx.eval_shape` makes of one.
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


def _array(value: Any) -> np.ndarray:
    """`value` as numpy; tensors of PyTorch in float32, since numpy knows no bfloat16."""
    if hasattr(value, "detach"):
        value = value.detach()
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)


def _fill(target: np.ndarray, given: np.ndarray, entry: Entry, shape: tuple[int, ...]) -> str:
    """Write `given` into its place; returns what is wrong with it, or nothing."""
    whole = np.issubdtype(target.dtype, np.integer)
    if not jnp.issubdtype(given.dtype, jnp.integer if whole else jnp.floating):
        return f"holds {given.dtype}, not {'whole' if whole else 'floating-point'} numbers"
    array = given
    if entry.resize is not None and given.shape != shape:
        array = entry.resize(given.astype(target.dtype))
    if array.shape != shape:
        return f"has shape {given.shape}, not {shape}"
    with np.errstate(over="ignore"):  # What overflows is found below.
        target[...] = entry.layout.ours(array)
    if whole and (target != entry.layout.ours(array)).any():
        return f"holds {array.max()}, more than {target.dtype} can"
    if not np.isfinite(target).all():
        return "holds values that are not finite"
    negative = entry.ours.endswith(".var") and (target < 0).any()
    return "holds negative variances" if negative else ""

"""Fill a model from an official state_dict, all of it or nothing."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from ssmjax.convert import vim
from ssmjax.models.vim import Vim
from ssmjax.weights import flat_params


def load_torch_state_dict(model: Vim, state_dict: Mapping[str, np.ndarray]) -> None:
    """Fill `model` in place from an official state_dict.

    Args:
      model: from `ssmjax.create_model`, with the sizes of the checkpoint.
      state_dict: {official name: array in PyTorch's layout}; kept as float32.

    Raises:
      ValueError: one error that lists every missing and unused name, wrong shape and parameter
        that would be left unfilled. The model is then unchanged.
    """
    entries = vim.table(model.config.depth)
    leaves = flat_params(model)
    filled = {name: np.full(leaf.shape, np.nan, np.float32) for name, leaf in leaves.items()}
    problems, used = [], set()
    for entry in entries:
        used.add(entry.theirs)
        target = filled[entry.ours] if entry.block is None else filled[entry.ours][entry.block]
        if entry.theirs not in state_dict:
            problems.append(f"missing {entry.theirs}")
            continue
        given = np.asarray(state_dict[entry.theirs])
        wanted = entry.layout(np.empty(given.shape)).shape if given.ndim else ()
        if wanted != target.shape:
            problems.append(f"{entry.theirs} has shape {given.shape}, unfit for {entry.ours}")
            continue
        target[...] = entry.layout(given)
    problems += [f"unused {name}" for name in state_dict if name not in used]
    problems += [f"unfilled {name}" for name in set(leaves) - {entry.ours for entry in entries}]
    if problems:
        raise ValueError(
            f"The state_dict does not fit this model, {len(problems)} problems: "
            f"{'; '.join(problems)}."
        )
    for name, leaf in leaves.items():
        leaf[...] = jnp.asarray(filled[name])

"""Models without initial values, to be filled from a state_dict."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import ssmjax


def blank_model(name: str, **options):
    """`create_model` that draws nothing (most of its time): every value is NaN until loaded."""
    model = nnx.eval_shape(lambda: ssmjax.create_model(name, **options))

    def blank(leaf):
        fill = np.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else -1
        return jnp.asarray(np.full(leaf.shape, fill, leaf.dtype))

    nnx.update(model, jax.tree.map(blank, nnx.state(model)))
    return model

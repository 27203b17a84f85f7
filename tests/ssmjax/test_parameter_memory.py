"""A pruned model needs hardly more memory than the dense one: it holds its parameters once."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import ssmjax
from ssmjax import PruneConfig

# Small images, so that parameters are most of the memory.
SIZES = {"depth": 6, "embed_dim": 128, "d_state": 4, "img_size": 48, "num_classes": 5}


def needed(name, prune):
    """Bytes of a forward pass's arguments, temporaries and results, as compiled."""
    model = nnx.eval_shape(lambda: ssmjax.create_model(name, **SIZES, prune=prune))
    images = jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.float32)
    compiled = jax.jit(lambda model, images: model(images)).lower(model, images).compile()
    sizes = compiled.memory_analysis()
    assert sizes is not None
    return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.output_size_in_bytes


@pytest.mark.parametrize(
    "name", ["vim_tiny_patch16_224", pytest.param("plainmamba_l2", marks=pytest.mark.slow)]
)
def test_parameters_are_held_once(name):
    assert needed(name, PruneConfig((2, 4), 0.8)) <= 1.15 * needed(name, None)

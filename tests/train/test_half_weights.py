"""Training that starts from weights in half precision: as from the same numbers in float32."""

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

import ssmjax
from ssmjax import imagenet
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, save_weights
from tests.train.small import backbone, run
from train.config import OptimConfig


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vim_tiny_patch16_224", np.float16),
        pytest.param("vim_tiny_patch16_224", ml_dtypes.bfloat16, marks=pytest.mark.slow),
        pytest.param("plainmamba_l1", np.float16, marks=pytest.mark.slow),
        ("deit_tiny_patch16_224", ml_dtypes.bfloat16),
    ],
)
def test_a_step(tmp_path, name, kind):
    """All parameters move, none stays in the file's precision, and the average is float32."""
    changes = {"dwconv_blocks": (1,), "conv_size": 3} if name.startswith("plain") else {}
    model = backbone(name, **changes)
    path = tmp_path / "a.safetensors"
    overrides = config_overrides(name, model.config)
    save_weights(path, model, Metadata(name, overrides, (), imagenet.preprocessing(name)))
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load_file(path)
    half = {n: a if a.dtype == np.int32 else a.astype(kind) for n, a in arrays.items()}
    wide = {n: a if a.dtype == np.int32 else a.astype(np.float32) for n, a in half.items()}
    config = OptimConfig(lr=1e-3, batch_size=8, ema=0.5)
    ends = []
    for content in (half, wide):
        safetensors.numpy.save_file(content, path, metadata=metadata)
        model = ssmjax.create_model(weights=path)
        before = jax.tree.map(np.array, nnx.state(model, nnx.Param))
        ends.append(run(model, config, steps=2))
    (state, losses), (want, wanted) = ends
    chex.assert_tree_all_finite(losses)
    assert losses == wanted
    chex.assert_trees_all_equal(state, want)
    moving = (state.params, state.averaged, state.opt_state)
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(moving)}
    assert kinds == {"float32", "int32"}
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, before)
    still = [jax.tree_util.keystr(p) for p, m in jax.tree.leaves_with_path(moved) if not m]
    assert not still

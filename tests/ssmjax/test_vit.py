"""Dense ViT: what test_golden.py, which holds it against timm, does not see."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ssmjax
from ssmjax.layers.attention import SelfAttention
from tests.golden import recipe
from tests.oracles import golden, vit_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.blank import blank_model

SIZES = {"embed_dim": 16, "depth": 2, "patch_size": 8}
NAME, HEADS = "deit_tiny_patch16_224", 4


def small(seed, tokens=13, grid=None, **options):
    """(model, weights by the recipe)."""
    state = golden.vit_state(seed, **SIZES, tokens=tokens, classes=5)
    options = {**SIZES, "num_heads": HEADS, "img_size": (24, 32), "num_classes": 5, **options}
    model = blank_model(NAME, **options)
    ssmjax.load_torch_state_dict(model, state, grid=grid)
    return model, state


def test_softmax_is_wide_in_bfloat16():
    """Rows of 400 equal tokens: 1 / 400 each, which bfloat16 sums would miss by percents."""
    attention = SelfAttention(16, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    _, weights = attention(jnp.ones((1, 400, 16), jnp.bfloat16))
    chex.assert_type(weights, jnp.float32)
    chex.assert_trees_all_close(weights, 1 / 400, rtol=1e-6)


def test_bfloat16_is_near():
    model, state = small(1, dtype="bfloat16")
    images = recipe.images(1, (2, 24, 32, 3))
    logits, feats = model(images, return_intermediates=True)
    chex.assert_type([logits, feats["residual"][1]], jnp.float32)
    assert_close(logits, vit_oracle.vit(state, images, HEADS).logits, 3e-2)


def test_checkpoint_of_another_grid():
    """4 x 4 patches to 3 x 4; the class token's embedding, first, is not resized."""
    model, state = small(2, tokens=17, grid=(4, 4))
    images = recipe.images(2, (2, 24, 32, 3))
    logits, feats = model(images, return_intermediates=True)
    first = state["cls_token"][0, 0] + state["pos_embed"][0, 0]
    chex.assert_trees_all_equal(feats["residual"][0][:, 0], np.array([first] * 2))
    want = vit_oracle.vit(ssmjax.to_torch_state_dict(model), images, HEADS)
    assert_close(logits, want.logits, 1e-5)


def test_drop_path_draws_for_attention_and_mlp_apart():
    """With one block dropped at 0.5, an image gains attention, MLP, both or neither."""
    model, _ = small(3, drop_path_rate=0.5)
    _, feats = model(
        recipe.images(3, (64, 24, 32, 3)),
        train=True,
        key=jax.random.key(0),
        return_intermediates=True,
    )
    before, mixed, after = feats["residual"][1], feats["hidden"][1], feats["residual"][2]
    gain = np.asarray(after - before)
    nothing = np.abs(gain).max(axis=(1, 2)) < 1e-6
    attention = np.abs(gain - 2 * np.asarray(mixed)).max(axis=(1, 2)) < 1e-4
    assert 8 <= nothing.sum() <= 24  # A quarter of 64, if the two are independent.
    assert 8 <= attention.sum() <= 24


def test_image_alone_equals_image_in_batch():
    model, _ = small(4)
    images = recipe.images(4, (3, 24, 32, 3))
    assert_close(model(images[1:2])[0], model(images)[1], 2e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_heads": 3}, "num_heads is 3; it must divide embed_dim, 16"),
        ({"num_heads": 0}, "num_heads is 0; it must be a whole number"),
        ({"mlp_ratio": 2.5}, "mlp_ratio is 2.5; it must be a whole number"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        blank_model(NAME, **{**SIZES, "num_heads": HEADS, **options})

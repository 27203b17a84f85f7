"""EViT, on the kept tokens only, against a masked float64 run over all tokens."""

from contextlib import nullcontext
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssmjax
from ssmjax.analysis.flops import flops
from ssmjax.analysis.pictures import kept_cells
from tests.golden import recipe
from tests.oracles import golden, vit_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.blank import blank_model

# 5 x 5 patches behind the class token.
SIZES = {"embed_dim": 32, "depth": 4, "patch_size": 8}
NAME, HEADS, PATCHES = "deit_small_patch16_224", 4, 25


class Prune(NamedTuple):
    after_blocks: tuple
    keep_ratio: float
    fuse: bool

    def config(self, **options):
        reduction = "fuse" if self.fuse else "drop"
        options = {"importance": "attention", "reduction": reduction, **options}
        return ssmjax.PruneConfig(self.after_blocks, self.keep_ratio, **options)

    def __str__(self):
        blocks = "-".join(map(str, self.after_blocks))
        return f"{blocks}_{self.keep_ratio}_{'fuse' if self.fuse else 'drop'}"


EVIT, FUSED = (Prune((1, 3), 0.7, fuse) for fuse in (False, True))
CASES = [
    (EVIT, "float64"),
    pytest.param(FUSED, "float64", marks=pytest.mark.slow),
    pytest.param(FUSED, "float32", marks=pytest.mark.slow),
    (Prune((1, 2), 0.5, True), "float64"),  # The second stage may drop what the first fused.
    (Prune((2,), 0.97, True), "float64"),  # One token is dropped, and fused alone.
]


def weights(seed):
    return golden.vit_state(seed, **SIZES, tokens=PATCHES + 1, classes=6)


def images(seed, batch=3):
    return recipe.images(seed, (batch, 40, 40, 3))


def build(state, prune, dtype="float32", **options):
    """`prune` is a `PruneConfig` or None."""
    options = {**SIZES, "num_heads": HEADS, "img_size": 40, "num_classes": 6, **options}
    model = blank_model(NAME, **options, dtype=jnp.dtype(dtype), prune=prune)
    ssmjax.load_torch_state_dict(model, state)
    return model


def at(tokens, positions):
    """Rows of [B,T,D] at [B,K]."""
    return np.take_along_axis(tokens, positions[..., None], axis=1)


def run(model, x, **options):
    """(logits, positions of each stage); with intermediates, so that all share a compilation."""
    return model(x, return_positions=True, return_intermediates=True, **options)[:2]


@pytest.mark.parametrize(("prune", "dtype"), CASES, ids=str)
def test_against_masked_run(prune, dtype):
    state, x = weights(11), images(11)
    want = vit_oracle.vit(state, x, HEADS, *prune)
    assert min(want.margins) > 1e-5, "choose another seed: rounding could change the selection"
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        model = build(state, prune.config(), dtype)
        logits, stages, feats = model(x, return_positions=True, return_intermediates=True)
    present = np.tile(np.arange(PATCHES + 1), (3, 1))
    for i, mixed in enumerate(feats["hidden"]):
        tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
        assert_close(mixed, at(want.hidden[i], present), tolerance, f"attention {i}")
        if i + 1 in prune.after_blocks:
            present = want.positions[prune.after_blocks.index(i + 1)]
        after = feats["residual"][i + 1]
        assert_close(after, at(want.outputs[i], present), tolerance, f"block {i}")
    for got, kept in zip(stages, want.positions, strict=True):
        chex.assert_type(got, jnp.int32)
        chex.assert_trees_all_equal(got, kept)
    chex.assert_type(logits, dtype)
    assert_close(logits, want.logits, tolerance, "logits")


def test_counts():
    """ceil(0.7 * 25) = 18, then 13; with a fused token 19, of which ceil(13.3) = 14 stay, 15."""
    state = weights(11)
    assert build(state, EVIT.config()).config.image_tokens == (25, 18, 13)
    model = build(state, FUSED.config())
    assert model.config.image_tokens == (25, 19, 15)
    _, stages = run(model, images(11))
    chex.assert_shape(stages, [(3, 20), (3, 16)])
    for number, stage in enumerate(map(np.asarray, stages)):
        assert (stage[:, 0] == 0).all() and (np.diff(stage, axis=1) > 0).all()
        assert (stage[:, -1] == PATCHES + 1 + number).all()


def test_keep_all_is_dense_bit_for_bit():
    state, x = weights(13), images(13)
    dense, _ = run(build(state, None), x)
    logits, stages = run(build(state, Prune((1, 3), 1.0, True).config()), x)
    chex.assert_trees_all_equal(logits, dense)
    for stage in stages:
        chex.assert_trees_all_equal(stage, np.tile(np.arange(PATCHES + 1), (3, 1)))


def test_image_alone_equals_image_in_batch():
    model, x = build(weights(14), FUSED.config()), images(14)
    logits, stages = run(model, x)
    assert len({tuple(row) for row in np.asarray(stages[0])}) == 3  # Each image has its own.
    alone, alone_stages = run(model, x[1:2])
    assert_close(alone[0], logits[1], 2e-6)
    for one, all_ in zip(alone_stages, stages, strict=True):
        chex.assert_trees_all_equal(one[0], all_[1])


def test_gradient_of_images():
    """Along a random direction, against central differences; attention's share in fusing too."""
    state, x = weights(16), images(16).astype(np.float64)
    direction, cotangent = recipe.images(17, x.shape), recipe.tensor(17, "head.weight", (3, 6))
    ends = [vit_oracle.vit(state, x + sign * 1e-5 * direction, HEADS, *FUSED) for sign in (1, -1)]
    chex.assert_trees_all_equal(ends[0].positions, ends[1].positions)
    want = ((ends[0].logits - ends[1].logits) * cotangent).sum() / 2e-5
    with jax.enable_x64(True):
        model = build(state, FUSED.config(), "float64")
        grad = jax.jit(jax.grad(lambda images: (model(images) * cotangent).sum()))(x)
    chex.assert_tree_all_finite(grad)
    assert_close((np.asarray(grad) * direction).sum(), want, 1e-6)


@pytest.mark.slow
def test_random_selection():
    state, x = weights(18), images(18)
    model = build(state, EVIT.config(importance="random"))
    logits, stages = run(model, x, key=jax.random.key(0))
    chex.assert_shape(stages, [(3, 19), (3, 14)])
    assert len(np.unique(stages[0], axis=0)) == 3
    assert_close(logits, vit_oracle.vit(state, x, HEADS, *EVIT, given=stages).logits, 1e-5)


def test_drop_path_and_pruning_train():
    model = build(weights(19), FUSED.config(), drop_path_rate=0.5)
    logits = [model(images(19), train=True, key=jax.random.key(k)) for k in (1, 1, 2)]
    chex.assert_trees_all_equal(logits[0], logits[1])
    chex.assert_tree_all_finite(logits)
    assert np.abs(logits[0] - logits[2]).max() > 0.1


def test_flops_inside_a_block():
    """Attention sees the tokens that its block prunes, the MLP does not."""
    count = flops(build(weights(12), FUSED.config())).parts
    D, before, after = 32, (26, 20, 20, 16), (20, 20, 16, 16)
    assert count["qkv"] == sum(before) * 3 * D * D
    assert count["attention"] == sum(2 * T * T * D for T in before)
    assert count["mlp"] == sum(after) * 2 * D * 4 * D


def test_published_schedule():
    dense, pruned = (blank_model(NAME, prune=prune) for prune in (None, "paper"))
    assert pruned.config.prune == Prune((4, 7, 10), 0.7, False).config()
    assert pruned.config.image_tokens == (196, 138, 97, 68)
    assert flops(pruned).total / 1e9 == pytest.approx(3.0, rel=5e-3)
    assert 1 - flops(pruned).total / flops(dense).total == pytest.approx(0.35, abs=1e-2)


def test_pictures_pass_over_fused_tokens():
    model = build(weights(12), FUSED.config())
    _, stages = run(model, images(12))
    row = np.asarray(stages[1])[0]
    patches = row[(row > 0) & (row <= PATCHES)] - 1
    chex.assert_trees_all_equal(np.flatnonzero(kept_cells(row, model.config)), patches)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"importance": "clip"}, "importance is 'clip'.*choose one of .*attention.*uniform"),
        ({"alignment": "none"}, "alignment is 'none'; .* ViT"),
        ({"conv": "aligned"}, "conv is 'aligned'; .* ViT"),
        (
            {"importance": "random", "reduction": "fuse"},
            "reduction is 'fuse'.*choose importance attention",
        ),
    ],
)
def test_what_means_nothing_to_a_vit_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        build(weights(12), EVIT.config(**options))


def test_attention_is_refused_elsewhere():
    with pytest.raises(ValueError, match="importance is 'attention'.*choose one of .*clip"):
        blank_model("vim_tiny_patch16_224", prune=EVIT.config())

"""Pruned PlainMamba, on the kept tokens only, against a masked float64 run over all positions."""

import functools
from contextlib import nullcontext

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssmjax
from tests.golden import recipe
from tests.oracles import golden
from tests.oracles.compare import assert_close
from tests.oracles.plain_mamba_oracle import plain_mamba
from tests.oracles.vim_oracle import Prune, count_to_keep
from tests.ssmjax.blank import blank_model

# 5 x 6 tokens. The residual convs stand before any pruning (in the block of the first stage) and
# after it (in a block that works on a grid with holes).
SIZES = {"embed_dim": 16, "d_state": 4, "depth": 3, "patch_size": 8, "conv_size": 3}
DWCONV, GRID, TOKENS = (0, 2), (5, 6), 30
PAPER = Prune((1, 2), 0.7)

# Every alignment with every conv, and every importance.
CASES = [
    PAPER,
    Prune((1, 2), 0.7, "sum", "previous", "aligned"),
    Prune((1, 2), 0.7, "l1", "zero_token", "compact"),
    Prune((1, 2), 0.7, "l2", "zero_token", "aligned"),
    Prune((1, 2), 0.7, "uniform", "none", "compact"),
    Prune((1, 2), 0.7, "clip", "none", "aligned"),
    Prune((1, 2, 3), 0.8, "l1", "previous", "aligned"),
    Prune((2,), 0.1, "clip", "previous", "compact"),
]
QUICK = [CASES[number] for number in (0, 3, 4, 6)]
IN_FLOAT32 = [CASES[0], CASES[3]]
SLOW = pytest.mark.slow
PAIRED = [PAPER, CASES[3]]


def case_id(prune):
    blocks = "-".join(map(str, prune.after_blocks))
    return f"{blocks}_{prune.keep_ratio}_{prune.importance}_{prune.alignment}_{prune.conv}"


def weights(seed, grid=GRID, **options):
    options = {**SIZES, "dwconv_blocks": DWCONV, **options}
    return golden.plain_mamba_state(seed, **options, tokens=grid[0] * grid[1], classes=6)


def images(seed, batch=3, grid=GRID):
    return recipe.images(seed, (batch, 8 * grid[0], 8 * grid[1], 3))


def build(state, prune, dtype="float32", grid=GRID, **options):
    if isinstance(prune, Prune):
        prune = ssmjax.PruneConfig(
            after_blocks=prune.after_blocks,
            keep_ratio=prune.keep_ratio,
            importance=prune.importance,
            alignment=prune.alignment,
            conv=prune.conv,
        )
    options = {**SIZES, "dwconv_blocks": DWCONV, **options}
    model = blank_model(
        "plainmamba_l1",
        **options,
        img_size=(8 * grid[0], 8 * grid[1]),
        num_classes=6,
        dtype=jnp.dtype(dtype),
        prune=prune,
    )
    ssmjax.load_torch_state_dict(model, state)
    return model


def run(model, x, **options):
    """(logits, positions of each stage, ...)."""
    return model(x, return_positions=True, **options)


def check(model, x, want, dtype):
    """Layer by layer on the kept tokens, so that a failure names the first that differs."""
    assert min(want.margins) > 1e-5, "choose another seed: rounding could change the selection"
    logits, stages, feats = run(model, x, return_intermediates=True)
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    stage_after = dict(zip(model.config.prune.after_blocks, want.positions, strict=True))
    kept = np.tile(np.arange(want.embedded.shape[1]), (len(x), 1))

    def compare(name, got, all_positions):
        want_kept = np.take_along_axis(all_positions, kept[:, :, None], 1)
        assert_close(got, want_kept, tolerance, name)

    compare("embedding", feats["residual"][0], want.embedded)
    for i, output in enumerate(want.residual):
        compare(f"mixer of block {i}", feats["hidden"][i], want.hidden[i])
        kept = stage_after.get(i + 1, kept)
        compare(f"block {i}, kept after it", feats["residual"][i + 1], output)
    for got, chosen in zip(stages, want.positions, strict=True):
        chex.assert_type(got, jnp.int32)
        chex.assert_trees_all_equal(got, chosen)
    chex.assert_type(logits, dtype)
    assert_close(feats["features"], want.features, tolerance, "features")
    assert_close(logits, want.logits, tolerance, "logits")


@pytest.mark.parametrize(
    ("prune", "dtype"),
    [pytest.param(prune, "float64", marks=() if prune in QUICK else SLOW) for prune in CASES]
    + [pytest.param(prune, "float32", marks=SLOW) for prune in IN_FLOAT32],
    ids=lambda v: v if isinstance(v, str) else case_id(v),
)
def test_against_masked_run(prune, dtype):
    state, x = weights(13), images(13)
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        check(build(state, prune, dtype), x, plain_mamba(state, x, prune), dtype)


@pytest.mark.parametrize("prune", [pytest.param(PAIRED[0], marks=SLOW), PAIRED[1]], ids=case_id)
def test_each_token_with_its_own_parameters(prune):
    state, x = weights(13), images(13)
    want = plain_mamba(state, x, prune, paired=True)
    with jax.enable_x64(True):
        check(build(state, prune, "float64", paired_paths=True), x, want, "float64")
    official = plain_mamba(state, x, prune)
    assert np.abs(official.hidden[0] - want.hidden[0]).max() > 1e-2  # before any pruning


@pytest.mark.parametrize(
    ("grid", "conv"),
    [
        pytest.param((2, 9), "compact", marks=SLOW),
        pytest.param((9, 2), "aligned", marks=SLOW),
        pytest.param((1, 12), "compact", marks=SLOW),
        ((12, 1), "aligned"),
    ],
    ids=str,
)
def test_other_grids(grid, conv):
    """Paths that turn at every step, convs larger than the grid, two blocks alike after pruning."""
    prune = Prune((1,), 0.6, "clip", "previous", conv)
    options = {"depth": 4, "dwconv_blocks": (1,), "conv_size": 5, "stem_convs": 2}
    state, x = weights(21, grid, **options), images(21, 2, grid)
    with jax.enable_x64(True):
        model = build(state, prune, "float64", grid, **options)
        check(model, x, plain_mamba(state, x, prune), "float64")


@pytest.mark.parametrize(("ratio", "counts"), [(0.7, [21, 15]), (0.55, [17, 10]), (0.001, [1, 1])])
def test_counts(ratio, counts):
    """ceil(ratio * tokens), no class token."""
    model = build(weights(12), Prune((1, 2), ratio))
    _, stages = jax.eval_shape(functools.partial(run, model), images(12))
    chex.assert_shape(stages, [(3, count) for count in counts])
    assert counts == [count_to_keep(ratio, TOKENS), count_to_keep(ratio, counts[0])]


@pytest.mark.parametrize(
    ("alignment", "conv", "paired_paths"),
    [pytest.param("previous", "compact", False, marks=SLOW), ("zero_token", "aligned", True)],
)
def test_keep_all_is_dense_bit_for_bit(alignment, conv, paired_paths):
    state, x = weights(13), images(13)
    dense, none = run(build(state, None, paired_paths=paired_paths), x)
    prune = Prune((1, 2), 1.0, "clip", alignment, conv)
    logits, stages = run(build(state, prune, paired_paths=paired_paths), x)
    chex.assert_trees_all_equal(logits, dense)
    assert len(none) == 0
    for stage in stages:
        chex.assert_trees_all_equal(stage, np.tile(np.arange(TOKENS), (3, 1)))


@pytest.mark.slow
def test_batch_image_alone_and_vmap_agree():
    model, x = build(weights(14), PAPER), images(14)
    logits, stages = run(model, x)
    assert len({tuple(row) for row in np.asarray(stages[0])}) == 3  # each image has its own
    for i in range(3):
        alone, alone_stages = run(model, x[i : i + 1])
        assert_close(alone[0], logits[i], 2e-6)
        for one, all_ in zip(alone_stages, stages, strict=True):
            chex.assert_trees_all_equal(one[0], all_[i])
    mapped = jax.jit(jax.vmap(lambda image: model(image[None])[0]))(x)
    assert_close(mapped, logits, 2e-6)


@pytest.mark.parametrize(
    ("prune", "paired"),
    [pytest.param(PAPER, False, marks=SLOW), (PAIRED[1], True)],
    ids=["previous", "paired"],
)
def test_gradient_of_images(prune, paired):
    """Along a random direction, against central differences of the masked run."""
    options = {"depth": 2, "dwconv_blocks": (0, 1)}
    state, x = weights(16, **options), images(16).astype(np.float64)
    direction, cotangent = recipe.images(17, x.shape), recipe.tensor(17, "head.weight", (3, 6))
    ends = [plain_mamba(state, x + sign * 1e-6 * direction, prune, paired) for sign in (1, -1)]
    chex.assert_trees_all_equal(ends[0].positions, ends[1].positions)
    want = ((ends[0].logits - ends[1].logits) * cotangent).sum() / 2e-6
    with jax.enable_x64(True):
        model = build(state, prune, "float64", **options, paired_paths=paired)
        grad = jax.jit(jax.grad(lambda images: (model(images) * cotangent).sum()))(x)
    chex.assert_tree_all_finite(grad)
    assert_close((np.asarray(grad) * direction).sum(), want, 1e-6)


def test_random_selection():
    prune = Prune((1, 2), 0.7, "random")
    options = {"depth": 2, "dwconv_blocks": (1,)}
    state, x = weights(18, **options), images(18)
    model = build(state, prune, **options)
    logits, stages = run(model, x, key=jax.random.key(0))
    again, same = run(model, x, key=jax.random.key(0))
    _, others = run(model, x, key=jax.random.key(1))
    chex.assert_trees_all_equal(logits, again)
    chex.assert_shape(stages, [(3, 21), (3, 15)])
    for stage, repeat, other in zip(stages, same, others, strict=True):
        chex.assert_trees_all_equal(stage, repeat)
        assert (np.asarray(stage) != np.asarray(other)).any()
    want = plain_mamba(state, x, prune, given=stages)
    assert_close(logits, want.logits, 1e-5)
    with pytest.raises(ValueError, match="key"):
        model(x)


def test_ties_keep_the_lower_positions():
    """Every score is exactly zero: the gate is closed."""
    options = {"depth": 1, "dwconv_blocks": ()}
    state = weights(19, **options)
    for name in ("in_proj.weight", "in_proj.bias"):
        state[f"backbone.layers.0.mamba.{name}"][2 * SIZES["embed_dim"] :] = 0
    _, (stage,) = run(build(state, Prune((1,), 0.6), **options), images(19))
    chex.assert_trees_all_equal(stage, np.array([[*range(18)]] * 3))


def test_bad_options():
    with pytest.raises(ValueError, match="after_blocks|3 blocks"):
        build(weights(11), Prune((1, 4), 0.7))
    for wrong in ({"dwconv_blocks": (0, 3)}, {"conv_size": 4}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ssmjax.create_model("plainmamba_l1", **{**SIZES, "img_size": (40, 48), **wrong})

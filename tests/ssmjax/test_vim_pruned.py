"""Pruned Vim, on the kept tokens only, against a masked float64 run over all positions."""

from contextlib import nullcontext

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssmjax
from tests.golden import recipe
from tests.oracles import golden, vim_oracle
from tests.oracles.compare import assert_close
from tests.oracles.vim_oracle import Prune, count_to_keep
from tests.ssmjax.blank import blank_model

# 5 x 5 patches: an odd number, so the class token sits at 12 of 26 positions.
SIZES = {"embed_dim": 32, "d_state": 4, "depth": 4, "patch_size": 8}
CLS, PATCHES = 12, 25
PAPER = Prune((1, 3), 0.7)

CASES = [
    *(
        Prune((1, 3), 0.7, "clip", alignment, conv)
        for alignment in ("previous", "zero_token", "none")
        for conv in ("compact", "aligned")
    ),
    Prune((1, 3), 0.7, "sum"),
    Prune((1, 3), 0.7, "l1", "zero_token"),
    Prune((1, 3), 0.7, "l2", "previous", "aligned"),
    Prune((1, 3), 0.7, "uniform"),
    Prune((1, 2, 3), 0.8, "clip", "zero_token", "aligned"),
    Prune((1, 2, 3, 4), 0.8, "l1", "previous", "aligned"),
    Prune((2,), 0.5, "clip", "previous", "compact"),
    Prune((1, 3), 0.1, "clip", "previous", "aligned"),
]

QUICK = [CASES[number] for number in (0, 3, 5, 8, 11)]
IN_FLOAT32 = [CASES[0], CASES[3], CASES[8], CASES[11]]
SLOW = pytest.mark.slow


def case_id(prune):
    blocks = "-".join(map(str, prune.after_blocks))
    return f"{blocks}_{prune.keep_ratio}_{prune.importance}_{prune.alignment}_{prune.conv}"


def weights(seed):
    return golden.vim_state(seed, **SIZES, tokens=PATCHES + 1, classes=6)


def images(seed, batch=3):
    return recipe.images(seed, (batch, 40, 40, 3))


def build(state, prune, dtype="float32"):
    if isinstance(prune, Prune):
        prune = ssmjax.PruneConfig(
            after_blocks=prune.after_blocks,
            keep_ratio=prune.keep_ratio,
            importance=prune.importance,
            alignment=prune.alignment,
            conv=prune.conv,
        )
    model = blank_model(
        "vim_tiny_patch16_224",
        **SIZES,
        img_size=40,
        stride=8,
        num_classes=6,
        dtype=jnp.dtype(dtype),
        prune=prune,
    )
    ssmjax.load_torch_state_dict(model, state)
    return model


def run(model, x, **options):
    """(logits, positions of each stage)."""
    return model(x, return_positions=True, **options)


@pytest.mark.parametrize(
    ("prune", "dtype"),
    [pytest.param(prune, "float64", marks=() if prune in QUICK else SLOW) for prune in CASES]
    + [pytest.param(prune, "float32", marks=SLOW) for prune in IN_FLOAT32],
    ids=lambda v: v if isinstance(v, str) else case_id(v),
)
def test_against_masked_run(prune, dtype):
    state, x = weights(11), images(11)
    want = vim_oracle.vim(state, x, 8, prune)
    assert min(want.margins) > 1e-5, "choose another seed: rounding could change the selection"
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        logits, stages = run(build(state, prune, dtype), x)
    assert len(stages) == len(prune.after_blocks)
    for got, kept in zip(stages, want.positions, strict=True):
        chex.assert_type(got, jnp.int32)
        chex.assert_trees_all_equal(got, kept)
    chex.assert_type(logits, dtype)
    assert_close(logits, want.logits, {"float32": 1e-5, "float64": 1e-10}[dtype], "logits")


@pytest.mark.parametrize(
    ("ratio", "counts"),
    [pytest.param(0.7, (18, 13), marks=SLOW), (0.56, (14, 8)), (0.001, (1, 1))],
)
def test_positions(ratio, counts):
    """ceil(ratio * patches) + 1: 0.56 of 25 is 14, although 0.56 * 25 > 14 in floats."""
    prune = Prune((1, 3), ratio)
    _, (first, second) = run(build(weights(12), prune), images(12))
    chex.assert_shape([first, second], [(3, count + 1) for count in counts])
    assert counts == (count_to_keep(ratio, 25), count_to_keep(ratio, counts[0]))
    for stage in map(np.asarray, (first, second)):
        assert (np.diff(stage, axis=1) > 0).all()
        assert stage.min() >= 0 and stage.max() <= PATCHES
        assert (stage == CLS).sum(axis=1).tolist() == [1, 1, 1]
    for before, after in zip(np.asarray(first), np.asarray(second), strict=True):
        assert set(after) < set(before) or ratio == 0.001


@pytest.mark.parametrize(
    ("alignment", "conv"),
    [pytest.param("previous", "compact", marks=SLOW), ("zero_token", "aligned")],
)
def test_keep_all_is_dense_bit_for_bit(alignment, conv):
    state, x = weights(13), images(13)
    dense, none = run(build(state, None), x)
    logits, stages = run(build(state, Prune((1, 3), 1.0, "clip", alignment, conv)), x)
    chex.assert_trees_all_equal(logits, dense)
    assert len(none) == 0
    for stage in stages:
        chex.assert_trees_all_equal(stage, np.tile(np.arange(PATCHES + 1), (3, 1)))


def test_image_alone_equals_image_in_batch():
    model, x = build(weights(14), PAPER), images(14)
    logits, stages = run(model, x)
    assert len({tuple(row) for row in np.asarray(stages[0])}) == 3  # each image has its own
    for i in range(3):
        alone, alone_stages = run(model, x[i : i + 1])
        assert_close(alone[0], logits[i], 2e-6)
        for one, all_ in zip(alone_stages, stages, strict=True):
            chex.assert_trees_all_equal(one[0], all_[i])


def test_eager_jit_and_vmap_agree():
    model, x = build(weights(15), PAPER), images(15)
    logits, stages = jax.jit(lambda x: run(model, x))(x)
    eager, eager_stages = run(model, x)
    assert_close(eager, logits, 2e-6)
    chex.assert_trees_all_equal(eager_stages[1], stages[1])
    chex.assert_trees_all_equal(model(x), eager)
    mapped = jax.jit(jax.vmap(lambda image: model(image[None])[0]))(x)
    assert_close(mapped, logits, 2e-6)


@pytest.mark.parametrize(
    "prune",
    [
        pytest.param(PAPER, marks=SLOW),
        Prune((1, 3), 0.7, "l1", "zero_token", "aligned"),
    ],
    ids=case_id,
)
def test_gradient_of_images(prune):
    """Along a random direction, against central differences of the masked run."""
    state, x = weights(16), images(16).astype(np.float64)
    direction, cotangent = recipe.images(17, x.shape), recipe.tensor(17, "head.weight", (3, 6))
    ends = [vim_oracle.vim(state, x + sign * 1e-5 * direction, 8, prune) for sign in (1, -1)]
    chex.assert_trees_all_equal(ends[0].positions, ends[1].positions)
    want = ((ends[0].logits - ends[1].logits) * cotangent).sum() / 2e-5
    with jax.enable_x64(True):
        model = build(state, prune, "float64")
        grad = jax.jit(jax.grad(lambda images: (model(images) * cotangent).sum()))(x)
    chex.assert_tree_all_finite(grad)
    assert_close((np.asarray(grad) * direction).sum(), want, 1e-6)


def test_random_selection():
    prune = Prune((1, 3), 0.7, "random")
    state, x = weights(18), images(18)
    model = build(state, prune)
    logits, stages = run(model, x, key=jax.random.key(0))
    again, same = run(model, x, key=jax.random.key(0))
    _, others = run(model, x, key=jax.random.key(1))
    chex.assert_trees_all_equal(logits, again)
    chex.assert_shape(stages, [(3, 19), (3, 14)])
    for stage, repeat, other in zip(stages, same, others, strict=True):
        chex.assert_trees_all_equal(stage, repeat)
        assert (np.asarray(stage) != np.asarray(other)).any()
        assert (np.asarray(stage) == CLS).any(axis=1).all()
    want = vim_oracle.vim(state, x, 8, prune, given=stages)
    assert_close(logits, want.logits, 1e-5)
    with pytest.raises(ValueError, match="key"):
        model(x)


def tokens_of_my_choice(first_channel):
    """Weights whose tokens at block 1 are ones, but for the first channel; x branch all zeros."""
    state = weights(19)
    tokens = np.ones((1, PATCHES + 1, SIZES["embed_dim"]), np.float32)
    tokens[0, :, 0] = first_channel
    in_proj = np.zeros_like(state["layers.0.mixer.in_proj.weight"])
    in_proj[-1, 0] = 3e38  # one z: infinite where the first channel is large
    zeros = (
        "cls_token",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "layers.0.mixer.conv1d.bias",
        "layers.0.mixer.conv1d_b.bias",
    )
    return (
        state
        | {name: np.zeros_like(state[name]) for name in zeros}
        | {
            "pos_embed": tokens,
            "layers.0.mixer.in_proj.weight": in_proj,
            "layers.0.norm.weight": np.ones(SIZES["embed_dim"], np.float32),
        }
    )


def test_ties_keep_the_lower_positions():
    """Every score is exactly zero."""
    state = tokens_of_my_choice(np.zeros(PATCHES + 1))
    _, (stage,) = run(build(state, Prune((1,), 0.6)), images(19))
    # 15 patches and the class token.
    chex.assert_trees_all_equal(stage, np.array([[*range(16)]] * 3))


@pytest.mark.parametrize(
    "how", ["clip", *(pytest.param(how, marks=SLOW) for how in ("sum", "l1", "l2"))]
)
def test_nan_ranks_last(how):
    """The NaN tokens go first, and with them every NaN; the other scores tie at zero."""
    nan_tokens = [0, 3, 4, 20]
    first_channel = np.full(PATCHES + 1, 0.1)
    first_channel[nan_tokens] = 20.0
    state, x = tokens_of_my_choice(first_channel), images(19)
    logits, (stage,) = run(build(state, Prune((1,), 0.84, how)), x)  # 21 of 25
    chex.assert_trees_all_equal(stage, np.array([np.setdiff1d(np.arange(26), nan_tokens)] * 3))
    chex.assert_tree_all_finite(logits)
    assert np.ptp(logits) > 0.1
    logits, (stage,) = run(build(state, Prune((1,), 0.88, how)), x)  # 22 of 25
    chex.assert_trees_all_equal(stage, np.array([np.setdiff1d(np.arange(26), nan_tokens[1:])] * 3))
    chex.assert_trees_all_equal(logits, np.nan)


BAD = [
    ({"importance": "best"}, "importance.*clip"),
    ({"alignment": "constant"}, "alignment.*zero_token"),
    ({"conv": "wide"}, "conv.*compact"),
    ({"keep_ratio": 0.0}, "keep_ratio"),
    ({"keep_ratio": 1.5}, "keep_ratio"),
    ({"keep_ratio": float("nan")}, "keep_ratio"),
    ({"after_blocks": (0, 2)}, "after_blocks"),
    ({"after_blocks": (2, 2)}, "after_blocks"),
    ({"after_blocks": 2}, "after_blocks is 2"),
    ({"after_blocks": (True,)}, "after_blocks"),
    ({"keep_ratio": None}, "keep_ratio is None"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=lambda v: str(v) if type(v) is dict else "")
def test_bad_values_are_named(wrong, message):
    valid = {
        "after_blocks": (1, 3),
        "keep_ratio": 0.7,
        "importance": "clip",
        "alignment": "previous",
        "conv": "compact",
    }
    assert ssmjax.PruneConfig(**valid).keep_ratio == 0.7
    with pytest.raises(ValueError, match=f"(?s){message}"):
        ssmjax.PruneConfig(**(valid | wrong))


def test_schedule_must_fit_the_model():
    with pytest.raises(ValueError, match="after_blocks"):
        build(weights(11), Prune((1, 5), 0.7))
    with pytest.raises(ValueError, match="paper"):
        build(weights(11), "published")

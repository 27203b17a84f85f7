"""The optimiser against AdamW written out in numpy, and what it leaves alone."""

from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

import ssmjax
from train.config import OptimConfig
from train.engine import optim

SIZES = {"embed_dim": 16, "patch_size": 4, "img_size": 16, "num_classes": 3}
PLAIN_MAMBA = {"depth": 3, "d_state": 2, "dwconv_blocks": (1,)}
BREAKS = (2,)  # 1-based, of these blocks.


def shapes(name, **options):
    """Of a model's parameters."""
    create = partial(ssmjax.create_model, name, **SIZES, **options)
    return nnx.eval_shape(lambda: nnx.state(create(), nnx.Param))


def named(params):
    """{dotted name: array}."""
    return {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(params)}


VIM_DECAYED = {
    "patch_embed.proj.kernel",
    "blocks.mixer.in_proj.kernel",
    "blocks.mixer.out_proj.kernel",
    "blocks.mixer.forward.conv.kernel",
    "blocks.mixer.forward.x_proj.kernel",
    "blocks.mixer.forward.dt_kernel",
    "blocks.mixer.backward.conv.kernel",
    "blocks.mixer.backward.x_proj.kernel",
    "blocks.mixer.backward.dt_kernel",
    "head.kernel",
}
PLAIN_MAMBA_DECAYED = {
    "patch_embed.stem.0.conv.kernel",
    "patch_embed.stem.1.conv.kernel",
    "patch_embed.proj.kernel",
    "blocks.mixer.in_proj.kernel",
    "blocks.mixer.conv.kernel",
    "blocks.mixer.x_proj.kernel",
    "blocks.mixer.dt_kernel",
    "blocks.mixer.out_proj.kernel",
    "dwconvs.0.conv.kernel",
    "head.kernel",
}
VIT_DECAYED = {
    "patch_embed.proj.kernel",
    "blocks.attn.qkv.kernel",
    "blocks.attn.proj.kernel",
    "blocks.mlp.fc1.kernel",
    "blocks.mlp.fc2.kernel",
    "head.kernel",
}


@pytest.mark.parametrize(
    ("name", "options", "decayed"),
    [
        ("vim_tiny_patch16_224", {"depth": 1, "d_state": 2}, VIM_DECAYED),
        ("plainmamba_l1", PLAIN_MAMBA, PLAIN_MAMBA_DECAYED),
        ("deit_tiny_patch16_224", {"depth": 1, "num_heads": 2}, VIT_DECAYED),
    ],
)
def test_what_decays(name, options, decayed):
    mask = nnx.to_flat_state(optim.decay_mask(shapes(name, **options)))
    assert {".".join(map(str, path)) for path, leaf in mask if leaf.get_value()} == decayed


def test_schedule():
    config = OptimConfig(lr=1.0, min_lr=0.1, epochs=4, warmup_epochs=1, warmup_lr=0.2)
    rate = optim.schedule(config, 10)
    got = [float(rate(step)) for step in (0, 5, 10, 25, 40, 50)]
    chex.assert_trees_all_close(got, [0.2, 0.6, 1, 0.55, 0.1, 0.1], rtol=1e-7, atol=1e-6)


def test_a_full_cosine_goes_on_while_the_warm_up_multiplies_it():
    config = OptimConfig(
        lr=1.0, schedule="full_cosine", min_lr=0.1, epochs=4, warmup_epochs=1, warmup_lr=0.2
    )
    rate = optim.schedule(config, 10)
    root = np.sqrt(0.5)
    warm = {0: 0.2, 5: 0.6 * (0.55 + 0.45 * np.cos(np.pi / 8)), 10: 0.55 + 0.45 * root}
    wanted = warm | {20: 0.55, 30: 0.55 - 0.45 * root, 40: 0.1, 50: 0.1}
    chex.assert_trees_all_close({s: float(rate(s)) for s in wanted}, wanted, rtol=1e-7, atol=1e-6)


def test_a_run_that_is_nearly_all_warm_up_has_a_schedule():
    rate = optim.schedule(OptimConfig(lr=1.0, epochs=1, warmup_epochs=0.99), 10)
    chex.assert_trees_all_close([float(rate(9)), float(rate(10))], [1, 1e-6], rtol=1e-7, atol=1e-7)


def test_equal_configs_share_one_optimizer():
    pair = [
        optim.optimizer(
            OptimConfig(lr=0.5, frozen=("head",)), optim.schedule(OptimConfig(lr=0.5), 10), (1,)
        )
        for _ in range(2)
    ]
    assert pair[0] is pair[1]


def updated(config, params, grads):
    """Parameters after each of the gradients, by name, and the optimiser's last state."""
    optimizer = optim.optimizer(config, optax.constant_schedule(config.lr), BREAKS)
    state = optimizer.init(params)
    update, steps = jax.jit(optimizer.update), []
    for grad in grads:
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, updates)
        steps.append(named(params))
    return steps, state


@pytest.fixture(scope="module")
def params():
    """Of a small PlainMamba; none is 0, so that weight decay would move every one."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: rng.uniform(0.5, 1, a.shape).astype(np.float32),
        shapes("plainmamba_l1", **PLAIN_MAMBA),
    )


@pytest.fixture(scope="module")
def grads(params):
    rng = np.random.default_rng(1)
    return [jax.tree.map(lambda a: rng.standard_normal(a.shape, np.float32), params)] * 2 + [
        jax.tree.map(lambda a: 1e-4 * rng.standard_normal(a.shape, np.float32), params)
    ]


def test_adamw_with_clipping_decay_and_layer_decay_is_numpys(params, grads):
    config = OptimConfig(lr=0.1, b2=0.98, weight_decay=0.3, clip=2.0, layer_decay=0.5)
    got, _ = updated(config, params, grads)
    value = {name: np.float64(a) for name, a in named(params).items()}
    first, second = ({name: 0 * a for name, a in value.items()} for _ in range(2))
    block = {3: [1 / 8, 1 / 4, 1 / 2]}  # Of depth 3: the embedding is layer 0, the head layer 4.
    scale = {"patch_embed": 1 / 16, "pos_embed": 1 / 16, "dwconvs": 1 / 4, "norm": 1, "head": 1}
    for t, grad in enumerate(grads, start=1):
        grad = {name: np.float64(a) for name, a in named(grad).items()}
        norm = np.sqrt(sum(np.sum(g**2) for g in grad.values()))
        assert (norm > 2) == (t < 3)
        for name, g in grad.items():
            g = g * min(1, 2 / norm)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.98 * second[name] + 0.02 * g**2
            step = first[name] / (1 - 0.9**t) / (np.sqrt(second[name] / (1 - 0.98**t)) + 1e-8)
            if name in PLAIN_MAMBA_DECAYED:
                step = step + 0.3 * value[name]
            top = name.split(".")[0]
            factor = np.reshape(block[3], (3, *(1,) * (g.ndim - 1))) if top == "blocks" else None
            value[name] = value[name] - 0.1 * (scale[top] if factor is None else factor) * step
        chex.assert_trees_all_close(got[t - 1], value, rtol=1e-7, atol=2e-6)


def test_no_clip_leaves_a_large_gradient_as_it_is(params):
    """AdamW's own step hides the size: two gradients of different sizes tell."""
    ones = jax.tree.map(np.ones_like, params)
    large = [ones, jax.tree.map(lambda a: 3 * a, ones)]
    got, _ = updated(OptimConfig(lr=0.1, clip=None, weight_decay=0.0, b2=0.99), params, large)
    step = (0.1 * 3 + 0.09) / 0.19 / np.sqrt((0.01 * 9 + 0.0099) / (1 - 0.99**2))
    moved = got[0]["head.kernel"] - got[1]["head.kernel"]
    chex.assert_trees_all_close(moved, 0.1 * step, rtol=1e-4)


def test_layer_decay_without_blocks_slows_the_embedding_alone(params):
    """As much as below slowed blocks: by the power of depth + 1, which is 4."""
    scales = named(optim.layer_scales(params, 0.5, BREAKS, blocks=False))
    slowed = {name for name in scales if name.startswith(("patch_embed.", "pos_embed"))}
    assert slowed and len(slowed) < len(scales)
    want = {name: 1 / 16 if name in slowed else 1 for name in scales}
    chex.assert_trees_all_equal(scales, want)


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_frozen_parameters_neither_move_nor_need_a_state(params, grads, layer_decay):
    config = OptimConfig(
        lr=0.1, weight_decay=0.3, frozen=("patch_embed", "blocks"), layer_decay=layer_decay
    )
    (*_, got), state = updated(config, params, grads)
    before = named(params)
    moved = {name for name in before if not np.array_equal(before[name], got[name])}
    assert moved == {n for n in before if not n.startswith(("patch_embed.", "blocks."))}
    moments = [a for a in jax.tree.leaves(state) if a.ndim]
    assert sum(a.size for a in moments) == 2 * sum(before[name].size for name in moved)
    chex.assert_type(moments, np.float32)


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (("patch_embd",), "'patch_embd'.*begin with blocks, dwconvs, head, norm, patch_embed, pos"),
        (("blocks.mixer.in",), "'blocks.mixer.in'"),
        (("blocks", "dwconvs", "head", "norm", "patch_embed", "pos_embed"), "nothing to train"),
    ],
)
def test_what_cannot_be_frozen(params, frozen, said):
    optimizer = optim.optimizer(OptimConfig(frozen=frozen), optax.constant_schedule(0.1), ())
    with pytest.raises(ValueError, match=said):
        optimizer.init(params)

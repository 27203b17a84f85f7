"""FLOPs and parameters against published figures, XLA's own count and sums done by hand."""

import operator

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import ssmjax
from ssmjax.analysis.flops import count_parameters, flops, format_flops
from ssmjax.layers.conv import Cells

MICRO = {
    "depth": 4,
    "embed_dim": 32,
    "d_state": 4,
    "patch_size": 8,
    "img_size": 40,
    "num_classes": 6,
}


def abstract(name, **kwargs):
    """A model of shapes only, which is all that counting needs."""
    return nnx.eval_shape(lambda: ssmjax.create_model(name, **kwargs))


def published(size, **kwargs):
    return abstract(f"vim_{size}_224", **kwargs)


def micro(**kwargs):
    return abstract("vim_tiny_patch16_224", **{**MICRO, **kwargs})


@pytest.mark.parametrize(
    ("size", "one_direction", "both_directions"),
    [
        ("tiny_patch16", 1.449, 1.823),
        ("small_patch16", 5.076, 5.912),
        ("base_patch16", 18.867, 20.886),
    ],
)
def test_dense_figures(size, one_direction, both_directions):
    count = flops(published(size))
    assert count.published / 1e9 == pytest.approx(one_direction, abs=5e-4)
    assert count.total / 1e9 == pytest.approx(both_directions, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "paper", "official_counter"),
    [
        ("plainmamba_l1", 3.0, 3.021),
        ("plainmamba_l2", 8.1, 8.089),
        ("plainmamba_l3", 14.4, 14.453),
    ],
)
def test_dense_figures_of_plain_mamba(name, paper, official_counter):
    """The official counter also counts norms and activations."""
    count = flops(abstract(name))
    assert count.total == count.published
    assert round(count.total / 1e9, 1) == paper
    assert count.total / 1e9 == pytest.approx(official_counter, rel=5e-3)
    assert count.total / 1e9 < official_counter


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("deit_tiny_patch16_224", 1.258),
        ("deit_small_patch16_224", 4.608),
        ("deit_base_patch16_224", 17.582),
        ("vit_base_patch16_384", 55.5),
        ("vit_large_patch16_384", 191),
    ],
)
def test_dense_figures_of_vit(name, official):
    """DeiT's counter also counts norms."""
    count = flops(abstract(name))
    assert count.total == count.published
    assert count.total / 1e9 == pytest.approx(official, rel=5e-3)


@pytest.mark.parametrize(
    ("name", "paper", "paper_saves"),
    [
        ("vim_tiny_patch16_224", 1.29, 0.140),
        ("vim_small_patch16_224", 3.60, 0.294),
        ("plainmamba_l1", 2.46, 0.180),
        ("plainmamba_l2", 6.27, 0.226),
        ("plainmamba_l3", 8.44, 0.414),
    ],
)
def test_paper_schedules_give_the_paper_figures(name, paper, paper_saves):
    dense, pruned = flops(abstract(name)), flops(abstract(name, prune="paper"))
    assert 1 - pruned.published / dense.published == pytest.approx(paper_saves, abs=1e-2)
    # The paper prints Vim-T's dense count as 1.50 G, which is 1.449.
    printed = 1.50 / 1.449 if name.startswith("vim_tiny") else 1.0
    assert printed * pruned.published / 1e9 == pytest.approx(paper, rel=1e-2)


def test_every_token_of_every_block_is_counted():
    # 25 patches; after block 1 ceil(17.5) = 18 stay, after block 3 ceil(12.6) = 13, and with the
    # class token the four blocks see 26, 19, 19 and 14 tokens.
    count = flops(micro(prune=ssmjax.PruneConfig((1, 3), 0.7)))
    tokens = 26 + 19 + 19 + 14
    D, E, N, R = 32, 64, 4, 2
    assert count.parts == {
        "patch embedding": 25 * 8 * 8 * 3 * D,
        "in_proj": tokens * D * 2 * E,
        "conv": tokens * 2 * 4 * E,
        "x_proj": tokens * 2 * E * (R + 2 * N),
        "dt_proj": tokens * 2 * R * E,
        "scan": tokens * 2 * 9 * E * N,
        "skip and gate": tokens * 2 * 2 * E,
        "out_proj": tokens * E * D,
        "head": D * 6,
    }
    halved = ("conv", "x_proj", "dt_proj", "scan", "skip and gate")
    for part, published_count in count.published_parts.items():
        assert published_count * (2 if part in halved else 1) == count.parts[part]


def test_every_token_of_plain_mamba_is_counted():
    # 40 pixels are 20 after the stem and 5 tokens a side; 25, 18 and 18 tokens in three blocks.
    sizes = {**MICRO, "depth": 3, "stem_convs": 2, "conv_size": 5, "dwconv_blocks": (0, 2)}
    count = flops(abstract("plainmamba_l1", **sizes, prune=ssmjax.PruneConfig((1,), 0.7)))
    tokens = 25 + 18 + 18
    D, E, N, R = 32, 64, 4, 2
    assert count.parts == {
        "stem": 20 * 20 * (7 * 7 * 3 * 64 + 2 * 3 * 3 * 64 * 64),
        "patch embedding": 25 * 4 * 4 * 64 * D,
        "in_proj": tokens * D * 2 * E,
        "conv": tokens * 25 * E,
        "x_proj": tokens * E * (R + 2 * N),
        "dt_proj": tokens * R * E,
        "scan": tokens * 4 * 9 * E * N,
        "skip": tokens * 4 * E,
        "out_proj": tokens * E * D,
        "depthwise blocks": (25 + 18) * 9 * D,
        "head": D * 6,
    }


def test_every_token_of_vit_is_counted():
    # 25 patches and the class token.
    sizes = {key: size for key, size in MICRO.items() if key != "d_state"}
    count = flops(abstract("deit_tiny_patch16_224", **sizes, num_heads=4, mlp_ratio=3))
    T, D = 26, 32
    assert count.parts == {
        "patch embedding": 25 * 8 * 8 * 3 * D,
        "qkv": 4 * T * D * 3 * D,
        "attention": 4 * (T * T * D + T * T * D),
        "proj": 4 * T * D * D,
        "mlp": 4 * T * (D * 3 * D + 3 * D * D),
        "head": D * 6,
    }


def test_pruning_after_the_last_block_saves_nothing():
    late = flops(micro(prune=ssmjax.PruneConfig((4,), 0.5)))
    assert late.total == flops(micro()).total


def xla_flops(module, call, *shape):
    """What XLA counts for `call(module, x)` with x of this shape."""
    graphdef, params = nnx.split(module)
    function = jax.jit(lambda params, x: call(nnx.merge(graphdef, params), x))
    cost = function.lower(params, jax.ShapeDtypeStruct(shape, jnp.float32)).cost_analysis()
    assert cost is not None
    return cost["flops"]


def test_against_xla():
    """Everything linear; XLA counts a multiply-add as two, and the biases, which papers leave."""
    model = micro()
    graphdef, stacked = nnx.split(model.blocks)
    one = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), stacked)
    mixer = nnx.merge(graphdef, one).mixer
    depth, directions, tokens, D, E, R = 4, 2, 26, 32, 64, 2
    patches = xla_flops(model.patch_embed, operator.call, 1, 40, 40, 3) - 25 * D
    head = xla_flops(model.head, operator.call, 1, D) - 6
    in_proj = xla_flops(mixer.in_proj, operator.call, tokens, D)
    out_proj = xla_flops(mixer.out_proj, operator.call, tokens, E)
    x_proj = xla_flops(mixer.forward.x_proj, operator.call, tokens, E)
    dt_proj = xla_flops(mixer.forward, lambda direction, x: direction._delta(x), tokens, R)
    parts = flops(model).parts
    assert patches == 2 * parts["patch embedding"]
    assert head == 2 * parts["head"]
    assert depth * in_proj == 2 * parts["in_proj"]
    assert depth * out_proj == 2 * parts["out_proj"]
    assert depth * directions * x_proj == 2 * parts["x_proj"]
    assert depth * directions * dt_proj == 2 * parts["dt_proj"]


def test_plain_mamba_against_xla():
    """As `test_against_xla`; batch norms and activations are taken off, or not called."""
    model = abstract("plainmamba_l1", **MICRO, dwconv_blocks=(0, 1))
    graphdef, stacked = nnx.split(model.blocks)
    one = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), stacked)
    mixer = nnx.merge(graphdef, one).mixer
    depth, tokens, D, E, R = 4, 25, 32, 64, 2
    parts = flops(model).parts
    first, second = (layer.conv for layer in model.patch_embed.stem)
    stem = xla_flops(first, operator.call, 1, 40, 40, 3)
    stem += xla_flops(second, operator.call, 1, 20, 20, 64)
    # XLA does not count the taps that fall on the padding.
    assert 0.85 * 2 * parts["stem"] < stem < 2 * parts["stem"]
    patches = xla_flops(model.patch_embed.proj, operator.call, 1, 20, 20, 64) - tokens * D
    assert patches == 2 * parts["patch embedding"]
    for name, shape in {"in_proj": D, "out_proj": E}.items():
        outputs = {"in_proj": 2 * E, "out_proj": D}[name]
        counted = xla_flops(getattr(mixer, name), operator.call, tokens, shape)
        assert depth * (counted - tokens * outputs) == 2 * parts[name]  # Less the bias.
    assert depth * xla_flops(mixer.x_proj, operator.call, tokens, E) == 2 * parts["x_proj"]
    dt_proj = xla_flops(mixer, lambda mixer, x: mixer._delta(x), tokens, R)
    assert depth * dt_proj == 2 * parts["dt_proj"]
    cells = Cells((5, 5))
    conv = xla_flops(mixer.conv, lambda conv, x: conv(x, cells), 1, tokens, E)
    # One addition a tap, the bias among them; XLA adds one for all.
    assert depth * (conv - 1) == 2 * parts["conv"]
    dwconv = xla_flops(model.dwconvs[0].conv, lambda conv, x: conv(x, cells), 1, tokens, D)
    assert (
        2 * (dwconv - 1 + tokens * D) == 2 * parts["depthwise blocks"]
    )  # No bias: one addition less.
    assert xla_flops(model.head, operator.call, 1, D) - 6 == 2 * parts["head"]


def test_another_size_is_counted_as_if_made_for_it():
    wide = flops(micro(), (40, 80, 3))
    assert wide == flops(micro(img_size=(40, 80)))
    assert wide.total > flops(micro()).total


def test_images_no_size_would_fit():
    with pytest.raises(ValueError, match=r"takes images of 3 channels, as \(40, 40, 3\)"):
        flops(micro(), (40, 40, 1))
    with pytest.raises(ValueError, match="one patch of 8 pixels must fit"):
        flops(micro(), (40, 4, 3))


def test_printed_form_names_both_totals():
    count = flops(published("small_patch16"))
    lines = str(count).splitlines()
    assert lines[0].split() == ["part", "as", "computed", "as", "published"]
    assert lines[-1].split() == ["total", "5.912", "G", "5.076", "G"]
    assert len(lines) == len(count.parts) + 2
    assert len({len(line) for line in lines}) == 1
    assert format_flops(999_999_999) == "1000.000 M"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vim_tiny_patch16_224", 7_148_008),
        ("vim_small_patch16_224", 25_796_584),
        ("vim_base_patch16_224", 97_598_440),
        ("vim_tiny_patch16_stride8_224", 7_250_344),
        ("vim_small_patch16_stride8_224", 26_001_256),
        ("plainmamba_l1", 7_551_656),
        ("plainmamba_l2", 26_145_832),
        ("plainmamba_l3", 50_956_456),
        ("deit_tiny_patch16_224", 5_717_416),
        ("deit_small_patch16_224", 22_050_664),
        ("deit_base_patch16_224", 86_567_656),
        ("vit_base_patch16_384", 86_859_496),
        ("vit_large_patch16_384", 304_715_752),
    ],
)
def test_parameters(name, parameters):
    assert count_parameters(abstract(name)) == parameters

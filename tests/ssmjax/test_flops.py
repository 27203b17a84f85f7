"""FLOPs and parameters against published figures, XLA's own count and sums done by hand."""

import operator

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import ssmjax
from ssmjax.analysis.flops import count_parameters, flops, format_flops

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
    ("size", "after_blocks", "paper_saves"),
    [("tiny_patch16", (10, 20), 0.140), ("small_patch16", (5, 10, 15), 0.294)],
)
def test_pruned_figures(size, after_blocks, paper_saves):
    prune = ssmjax.PruneConfig(after_blocks, 0.8)
    dense, pruned = flops(published(size)), flops(published(size, prune=prune))
    assert 1 - pruned.published / dense.published == pytest.approx(paper_saves, abs=2e-3)


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


def test_pruning_after_the_last_block_saves_nothing():
    late = flops(micro(prune=ssmjax.PruneConfig((4,), 0.5)))
    assert late.total == flops(micro()).total


def xla_flops(module, call, *shape):
    """What XLA counts for `call(module, x)` with x of this shape."""
    graphdef, params = nnx.split(module)
    function = jax.jit(lambda params, x: call(nnx.merge(graphdef, params), x))
    cost = function.lower(params, jax.ShapeDtypeStruct(shape, jnp.float32)).cost_analysis()
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
    assert lines[0].split() == ["part", "both", "directions", "as", "published"]
    assert lines[-1].split() == ["total", "5.912", "G", "5.076", "G"]
    assert len(lines) == len(count.parts) + 2
    assert len({len(line) for line in lines}) == 1
    assert format_flops(999_999_999) == "1000.000 M"


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("tiny_patch16", 7_148_008),
        ("small_patch16", 25_796_584),
        ("base_patch16", 97_598_440),
        ("tiny_patch16_stride8", 7_250_344),
        ("small_patch16_stride8", 26_001_256),
    ],
)
def test_parameters(size, parameters):
    assert count_parameters(published(size)) == parameters

"""The adapter's stages, names and first training step against official numbers."""

import dataclasses
import functools
import math
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssmjax.convert.load import shapes_of
from ssmjax.dense.adapter import AdapterConfig, PlainMambaAdapter
from ssmjax.dense.ranges import DensePruneConfig
from ssmjax.models.plain_mamba import PlainMambaConfig
from tests.oracles import downstream as golden
from tests.oracles.compare import assert_close
from tests.ssmjax.dense.official import backbone_config, build, outline

TINY = ("maskrcnn_tiny_*", "retinanet_tiny_*")
ADAPTERS = [name for pattern in TINY for name in golden.names(pattern)]
BACKBONES = [*ADAPTERS, *golden.names("upernet_tiny_*")]
SMALL = AdapterConfig(
    PlainMambaConfig(depth=2, embed_dim=16, d_state=4, stem_convs=1, conv_size=3),
    ends=(1, 2),
    heads=2,
    prior_width=8,
)


@functools.partial(jax.jit, static_argnames=("graphdef", "train", "return_intermediates"))
def _forward(graphdef, state, images, **options):
    model = nnx.merge(graphdef, state)
    return model(images, **options), nnx.state(model, nnx.BatchStat)


def run(model, images, **options):
    """(What the model gives, the statistics it then has.)"""
    return _forward(*nnx.split(model), images, **options)


@functools.cache
def small(**changes):
    return PlainMambaAdapter(dataclasses.replace(SMALL, **changes), rngs=nnx.Rngs(0))


def _check(case, dtype):
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        model = build(backbone_config(case.backbone, dtype=dtype), case.state("backbone."))
        (maps, between), _ = run(model, case.images, return_intermediates=True)
    c1, *tokens = between["prior"]
    got = {"spm.c1": c1, "tokens0": between["tokens"]}
    got |= {f"spm.c{i}": x.reshape(len(x), -1, x.shape[-1]) for i, x in enumerate(tokens, 2)}
    for part in ("x", "c"):
        got |= {f"interaction{i}.{part}": a for i, a in enumerate(between[part])}
    got |= {f"feat{i}": x for i, x in enumerate(maps)}
    assert set(got) == {n for n in case.want if n.startswith(("spm", "tok", "inter", "feat"))}
    case.check(got, exact=dtype == "float64")


@pytest.mark.parametrize("name", ADAPTERS)
def test_official(downstream, name):
    _check(downstream(name), "float32")


@pytest.mark.parametrize("name", golden.names("maskrcnn_tiny_*"))
def test_official_in_float64(downstream, name):
    _check(downstream(name), "float64")


@pytest.mark.parametrize("name", golden.names("maskrcnn_l1_*"))
def test_official_of_published_size(downstream, name):
    _check(downstream(name), "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.names("retinanet_l1_*"))
def test_another_official_of_published_size(downstream, name):
    _check(downstream(name), "float32")


@pytest.mark.parametrize("name", BACKBONES)
def test_statistics_after_a_training_step(downstream, name):
    case = downstream(name)
    config = backbone_config(case.backbone, drop_path_rate=0.0)
    model, entries = build(config, case.state("backbone.")), outline(config)[1]
    _, statistics = run(model, case.images, train=True)
    got = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(statistics)}
    norms = case.about["scalars"]["bn_buffer_norms_after_step"]
    wanted = [entry for entry in entries if entry.theirs in norms]
    assert len(wanted) == sum(name.startswith("backbone.") for name in norms)
    for entry in wanted:
        norm = np.linalg.norm(np.asarray(got[entry.ours], np.float64))
        assert_close(norm, norms[entry.theirs], 2e-6, entry.theirs)
    counts = [leaf for name, leaf in got.items() if name.endswith(".count")]
    assert counts and all(count == 1 for count in counts)


@pytest.mark.parametrize("size", ["l1", "l2", "l3"])
@pytest.mark.parametrize("kind", ["maskrcnn", "retinanet", "upernet"])
def test_names_of_published_weights(kind, size):
    case = golden.load(golden.names(f"{kind}_l1_*")[0])
    blocks = {"l1": 24, "l2": 24, "l3": 36}[size]
    lasts = range(blocks // 4 - 1, blocks, blocks // 4)
    changes = {
        "arch": size.upper(),
        "out_indices": list(lasts),
        "interaction_indexes": [[last - blocks // 4 + 1, last] for last in lasts],
        "deform_num_heads": 8 if size == "l3" else 6,
    }
    known = {name: changes[name] for name in changes if name in case.backbone}
    model, entries = outline(backbone_config(case.backbone | known))
    theirs = golden.manifest(f"{kind}_{size}")["manifest"]
    want = [(name, tuple(shape)) for name, shape, _ in theirs if name.startswith("backbone.")]
    assert list(shapes_of(model, entries).items()) == want


def test_first_values():
    model = small()
    for interaction in model.interactions:
        assert not np.asarray(interaction.injector.gamma[...]).any()
    assert [len(interaction.extractors) for interaction in model.interactions] == [1, 3]
    for kernel, fan_out in (
        (model.prior.stem[0].conv.kernel, 9 * 8),
        (model.prior.stages[1].conv.kernel, 9 * 32),
        (model.up.kernel, 4 * 16),
    ):
        spread = np.asarray(kernel[...]).std()
        assert_close(spread, math.sqrt(2 / fan_out), 0.15)


def test_gamma_of_zero_leaves_the_trunk_alone():
    """Where nothing is injected, tokens do not depend on the spatial prior."""
    images = jax.random.normal(jax.random.key(1), (1, 64, 96, 3))
    one, other = small(), small()
    other.prior = PlainMambaAdapter(SMALL, rngs=nnx.Rngs(9)).prior
    (_, first), _ = run(one, images, return_intermediates=True)
    (_, second), _ = run(other, images, return_intermediates=True)
    for a, b in zip(first["x"], second["x"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(first["c"][0] - second["c"][0]).max() > 0.1


def test_pruned():
    """Keeping all is dense; keeping less changes the maps, each image's on its own."""
    images = jax.random.normal(jax.random.key(1), (2, 64, 96, 3))
    dense, _ = run(small(), images)
    everything = DensePruneConfig(after_blocks=(1, 2), keep_ratio=1)
    for a, b in zip(dense, run(small(prune=everything), images)[0], strict=True):
        np.testing.assert_array_equal(a, b)
    half = small(prune=DensePruneConfig(after_blocks=(1,), keep_ratio=0.5))
    (maps, between), _ = run(half, images, return_intermediates=True)
    assert [a.shape for a in maps] == [a.shape for a in dense]
    moved = np.abs(between["x"][1] - between["x"][0]).max(axis=-1) > 0
    np.testing.assert_array_equal(moved.sum(axis=1), [12, 12])
    (turned, _), _ = run(half, images[::-1], return_intermediates=True)
    for a, b in zip(maps, turned, strict=True):
        assert_close(a[::-1], b, 1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "heads is 3; it must divide embed_dim, which is 16"),
        ({"points": 0}, "points is 0"),
        ({"ffn_ratio": 0.01}, "leave at least 1"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_sides_that_are_no_multiples_are_refused():
    with pytest.raises(ValueError, match="pad height and width to multiples of 32"):
        small()(jnp.zeros((1, 64, 80, 3)))

"""The adapter's stages, names and first training step against official numbers."""

import dataclasses
import functools
import math
from contextlib import nullcontext

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssmjax.convert.load import shapes_of
from ssmjax.dense.backbones.adapter import AdapterConfig, Interaction, PlainMambaAdapter
from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.dense.backbones.spatial_prior import SpatialPrior
from ssmjax.models.plain_mamba import PlainMambaConfig
from ssmjax.models.run import Run
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


@functools.partial(jax.jit, static_argnames=("graphdef", "train"))
def _forward(graphdef, state, images, **options):
    model = nnx.merge(graphdef, state)
    return model(images, Run(**options)), nnx.state(model, nnx.BatchStat)


def run(model, images, **options):
    """(What the model gives, the statistics it then has.)"""
    return _forward(*nnx.split(model), images, **options)


def small(state=None, **changes):
    """The small adapter, filled from `state`, or else by the recipe."""
    return build(dataclasses.replace(SMALL, **changes), state or small_state())


@functools.cache
def small_state(seed=1):
    shapes = shapes_of(*outline(SMALL))
    return golden.recipe_downstream.state_dict(seed, list(shapes.items()))


def _check(case, dtype):
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        model = build(backbone_config(case.backbone, dtype=dtype), case.state("backbone."))
        (maps, _, between), _ = run(model, case.images)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.names("maskrcnn_tiny_*"))
def test_official_in_float64(downstream, name):
    _check(downstream(name), "float64")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*golden.names("maskrcnn_l1_*"), *golden.names("retinanet_l1_*")])
def test_official_of_published_size(downstream, name):
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


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (kind, "l1") if size == "l1" else pytest.param(kind, size, marks=pytest.mark.slow)
        for kind in ("maskrcnn", "retinanet", "upernet")
        for size in ("l1", "l2", "l3")
    ],
)
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
    @nnx.jit
    def draw():
        rngs = nnx.Rngs(0)
        prior = SpatialPrior(3, 8, 16, dtype=jnp.float32, rngs=rngs)
        return Interaction(SMALL, 1, rngs=rngs), prior

    interaction, prior = draw()
    assert not np.asarray(interaction.injector.gamma[...]).any()
    for kernel, fan_out in (
        (prior.stem[0].conv.kernel, 9 * 8),
        (prior.stages[1].conv.kernel, 9 * 32),
        (prior.projections[3].kernel, 16),
        (interaction.extractors[0].ffn.conv.kernel, 9),
    ):
        kernel = np.asarray(kernel[...])
        assert_close(kernel.std(), math.sqrt(2 / fan_out), 3 / math.sqrt(2 * kernel.size))


@pytest.mark.slow
def test_gamma_of_zero_leaves_the_trunk_alone():
    """Where nothing is injected, tokens do not depend on the spatial prior."""
    other = small_state(2)
    closed = {k: np.zeros_like(a) if k.endswith("gamma") else a for k, a in small_state().items()}
    moved = {k: other[k] if k.startswith("backbone.spm") else a for k, a in closed.items()}
    images = jax.random.normal(jax.random.key(1), (1, 64, 96, 3))
    first, second = (run(small(state), images)[0].intermediates for state in (closed, moved))
    chex.assert_trees_all_equal(first["x"], second["x"])
    assert np.abs(first["c"][0] - second["c"][0]).max() > 0.1


@pytest.mark.slow
def test_pruned():
    """Keeping all is dense; keeping less changes the maps, each image's on its own."""
    images = jax.random.normal(jax.random.key(1), (2, 64, 96, 3))
    dense = run(small(), images)[0].maps
    everything = DensePruneConfig(after_blocks=(1, 2), keep_ratio=1)
    chex.assert_trees_all_equal(dense, run(small(prune=everything), images)[0].maps)
    half = small(prune=DensePruneConfig(after_blocks=(1,), keep_ratio=0.5))
    maps = run(half, images)[0].maps
    chex.assert_trees_all_equal_shapes(maps, dense)
    assert np.abs(maps[2] - dense[2]).max() > 0.01
    turned = run(half, images[::-1])[0].maps
    for a, b in zip(maps, turned, strict=True):
        assert_close(a[::-1], b, 1e-6)


@pytest.mark.slow
def test_pruned_cells_go_on_in_both_branches():
    """They take what is injected and keep it over the blocks; the side branch reads them all."""
    images = jax.random.normal(jax.random.key(1), (2, 64, 96, 3))
    model = small(prune=DensePruneConfig(after_blocks=(1,), keep_ratio=0.5))
    assert isinstance(model, PlainMambaAdapter)
    sizes = jnp.array([[64, 96], [33, 48]])  # The second fills 3 x 3 of 4 x 6 cells.
    found, _ = run(model, images, image_sizes=sizes)
    (first, x), (c, last) = found.intermediates["x"], found.intermediates["c"]
    kept = found.kept[-1]
    chex.assert_shape(kept, (2, 12))
    rows, columns = np.divmod(np.asarray(kept[1]), 6)
    assert (rows < 3).sum() >= 9 and {(r, c) for r in range(3) for c in range(3)} <= {
        *zip(rows.tolist(), columns.tolist(), strict=True)
    }
    grids, interaction = ((8, 12), (4, 6), (2, 3)), model.interactions[1]
    injected = interaction.injector(first, c, grids)
    for image in range(2):
        pruned = np.setdiff1d(np.arange(24), kept[image])
        assert_close(x[image, pruned], injected[image, pruned], 1e-6)
        assert np.abs(x[image, kept[image]] - injected[image, kept[image]]).min() > 0
        assert np.abs(injected[image, pruned] - first[image, pruned]).max() > 1e-3
    for extractor in interaction.extractors:
        c = extractor(c, x, grids, lambda a: a)
    assert_close(last, c, 1e-5)


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
        small()(jnp.zeros((1, 64, 80, 3)), Run())

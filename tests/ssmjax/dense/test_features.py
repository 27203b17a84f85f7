"""PlainMamba's maps against official numbers; pruned, against a masked run over all cells."""

import dataclasses
import functools
from contextlib import nullcontext

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssmjax.convert.load import shapes_of
from ssmjax.dense.backbones.plain_mamba import PlainMambaFeatures
from ssmjax.dense.backbones.ranges import DensePruneConfig, RangesConfig
from ssmjax.layers.pos_embed import resize_inside
from ssmjax.models.plain_mamba import PlainMambaConfig
from ssmjax.models.run import Run
from tests.golden import recipe
from tests.oracles import downstream as golden
from tests.oracles import plain_mamba_oracle as oracle
from tests.oracles.compare import assert_close
from tests.oracles.vim_oracle import Prune, prune_stage
from tests.ssmjax.dense import units
from tests.ssmjax.dense.official import backbone_config, build, outline

GRID, PATCH, ENDS = (5, 6), 8, (1, 3)
TRUNK = PlainMambaConfig(
    depth=3,
    embed_dim=16,
    d_state=4,
    patch_size=PATCH,
    img_size=tuple(PATCH * side for side in GRID),
    stem_convs=1,
    conv_size=3,
    dwconv_blocks=(0, 2),
)
# The second image is 3 rows and 4 columns of patches and a pixel more; the third has no padding.
SIZES = np.array([[40, 48], [25, 33], [37, 48]])
PADDING = np.array([(y >= SIZES[:, :1] / 8) | (x >= SIZES[:, 1:] / 8) for y, x in np.ndindex(GRID)])
PADDING = PADDING[..., 0].T


def config(prune=None, **options):
    if isinstance(prune, Prune):
        fields = dataclasses.asdict(prune)
        prune = DensePruneConfig(**fields)
    return RangesConfig(dataclasses.replace(TRUNK, **options), ENDS, prune)


@functools.cache
def weights():
    model, entries = outline(config())
    return recipe.state_dict(7, list(shapes_of(model, entries).items()))


def images(batch=3):
    draw = recipe.images(5, (batch, *(PATCH * side for side in GRID), 3))
    for image, (height, width) in zip(draw, SIZES, strict=False):
        image[height:] = image[:, width:] = 0
    return draw


@functools.partial(jax.jit, static_argnames=("graphdef", "train"))
def _forward(graphdef, state, images, **options):
    return nnx.merge(graphdef, state)(images, Run(**options)).maps


def run(model, images, **options):
    return _forward(*nnx.split(model), images, **options)


def masked(state, images, prune, padding=None):
    """The oracle: every cell is worked on, and pruned ones stay as they are."""
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    x, grid = oracle.embed(state, np.asarray(images, np.float64))
    keep, maps, margins = np.ones(x.shape[:2], bool), [], []
    for i in range(TRUNK.depth):
        prefix = f"backbone.layers.{i}."
        norm = (state[f"{prefix}norm.{part}"] for part in ("weight", "bias"))
        normed = oracle.layer_norm(x, *norm, 1e-5)
        hidden, y = oracle.mixer(state, f"{prefix}mamba.", normed, keep, grid, prune, False)
        x = np.where(keep[..., None], x + hidden, x)
        if f"{prefix}dw.0.weight" in state:
            new = oracle.grid_conv_block(state, f"{prefix}dw.", x, keep, grid, prune.conv)
            x = np.where(keep[..., None], new, x)
        if i + 1 in prune.after_blocks:
            y = y if padding is None else np.where(padding[..., None], np.nan, y)
            keep, margin = prune_stage(y, keep, prune)
            margins.append(margin)
        if i + 1 in ENDS:
            name = "ln1" if i + 1 == ENDS[-1] else f"norm_layer{i}"
            norm = (state[f"backbone.{name}.{part}"] for part in ("weight", "bias"))
            maps.append(oracle.layer_norm(x, *norm, 1e-6).reshape(len(x), *grid, -1))
    assert padding is not None or min(margins, default=1) > 1e-6, "a choice too close to test"
    return maps, keep


@pytest.mark.parametrize("unit", units.ALL)
def test_position_embeddings(unit):
    before = "pos_embed.bicubic_"
    names = [name for name in unit.arrays if name.startswith(before)]
    assert len(names) > 1
    for name in names:
        height, width = map(int, name.removeprefix(before).split("x"))
        got = resize_inside(jnp.asarray(unit["pos_embed.in"]), (14, 14), (height, width))
        # "tokens ::41" are those that the file has.
        _, every = (*unit.numbers(name), 1)[:2]
        assert_close(got[:, :: int(every)], unit[name], 2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", golden.names("upernet_tiny_*"))
def test_official(downstream, name, dtype):
    _check(downstream(name), dtype)


@pytest.mark.slow  # The adapter's test runs the same blocks at this size.
@pytest.mark.parametrize("name", golden.names("upernet_l1_*"))
def test_official_of_published_size(downstream, name):
    _check(downstream(name), "float32")


def _check(case, dtype):
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        model = build(backbone_config(case.backbone, dtype=dtype), case.state("backbone."))
        begin = jax.jit(lambda model: model.trunk.begin(jnp.asarray(case.images), Run()).values)
        tokens = begin(model)
        maps = run(model, case.images)
    got = {"tokens0": tokens} | {f"feat{i}": x for i, x in enumerate(maps)}
    case.check({name: x for name, x in got.items() if name in case.want}, exact=dtype == "float64")


CASES = [
    Prune((2,), 0.6, conv="frozen"),
    Prune((1, 2), 0.7, "l1", "none", "aligned"),
    Prune((1, 3), 0.8, "sum", "previous", "compact"),
]


@pytest.mark.parametrize("prune", CASES, ids=str)
def test_pruned(prune):
    want, _ = masked(weights(), images(), prune)
    with jax.enable_x64(True):
        maps = run(build(config(prune, dtype="float64"), weights()), images())
    for got, expected in zip(maps, want, strict=True):
        assert_close(got, expected, 1e-9)


@pytest.mark.parametrize("ratio", [0.9, 0.5])
def test_padding_goes_first(ratio):
    prune = Prune((2,), ratio, conv="frozen")
    want, keep = masked(weights(), images(), prune, PADDING)
    model = build(config(prune), weights())
    for got, expected in zip(run(model, images(), image_sizes=SIZES), want, strict=True):
        assert_close(got, expected, 2e-5)
    dropped, count = PADDING.sum(axis=1), GRID[0] * GRID[1] - keep.sum(axis=1)
    assert (dropped > 0).tolist() == [False, True, False]
    for row, padding, out, number in zip(keep, PADDING, dropped, count, strict=True):
        assert (~row & padding).sum() == min(out, number)


def test_keeping_all_is_dense_bit_for_bit():
    dense = run(build(config(), weights()), images())
    prune = DensePruneConfig(after_blocks=(1, 2), keep_ratio=1)
    pruned = run(build(config(prune), weights()), images(), image_sizes=SIZES)
    chex.assert_trees_all_equal(dense, pruned)


def test_images_do_not_influence_one_another():
    model = build(config(CASES[0]), weights())
    together = run(model, images(), image_sizes=SIZES)
    order = [2, 0, 1]
    for a, b in zip(together, run(model, images()[order], image_sizes=SIZES[order]), strict=True):
        assert_close(np.asarray(a)[order], b, 1e-6)


@pytest.mark.slow
def test_gradient_through_pruning():
    """Along a random direction of all parameters, against the difference of two runs."""
    with jax.enable_x64(True):
        model = build(config(CASES[0], dtype="float64"), weights())
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
        inputs = images(1)

        @jax.jit
        def loss(params):
            maps = nnx.merge(graphdef, params, rest)(inputs, Run()).maps
            return sum(jnp.mean(jnp.sin(x + i)) for i, x in enumerate(maps))

        leaves, tree = jax.tree.flatten(params)
        draw = np.random.default_rng(3)
        way = [draw.normal(size=leaf.shape) for leaf in leaves]

        def at(by):
            moved = (leaf + by * a for leaf, a in zip(leaves, way, strict=True))
            return float(loss(jax.tree.unflatten(tree, moved)))

        gradient = jax.tree.leaves(jax.grad(loss)(params))
        got = sum(np.sum(g * a) for g, a in zip(gradient, way, strict=True))
        step = 1e-6
        assert_close(got, (at(step) - at(-step)) / (2 * step), 1e-5)


def test_any_size_of_images():
    """37 x 50 pixels are 5 x 7 patches, the last ones cut; other parameters stay as they are."""
    odd = recipe.images(6, (2, 37, 50, 3))
    state = dict(weights())
    state["backbone.pos_embed"] = np.asarray(
        resize_inside(jnp.asarray(state["backbone.pos_embed"]), GRID, (5, 7))
    )
    want, _ = masked(state, odd, Prune())
    for got, expected in zip(run(build(config(), weights()), odd), want, strict=True):
        chex.assert_shape(got, (2, 5, 7, 16))
        assert_close(got, expected, 2e-5)


def test_drop_path_acts_in_training_alone():
    model = build(config(drop_path_rate=0.9), weights())
    plain = build(config(), weights())
    chex.assert_trees_all_equal(run(model, images()), run(plain, images()))
    with pytest.raises(ValueError, match="drop path needs a key"):
        model(images(), Run(train=True))

    def trained(key):
        return run(model, images(), train=True, key=key)[-1]

    first, again, other = (np.asarray(trained(jax.random.key(i))) for i in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config(DensePruneConfig((4,), 0.5)), "after_blocks is .4,.; the model has 3"),
        (lambda: config(DensePruneConfig((1,), 0.5, "attention")), "needs the blocks' attention"),
        (lambda: DensePruneConfig((1,), 0.5, reduction="merge"), "it must be 'drop'"),
        (lambda: DensePruneConfig((1,), 0.5, conv="nearest"), "frozen, compact, aligned"),
        (lambda: RangesConfig(TRUNK, (1, 2)), "the last 3"),
        (lambda: RangesConfig(TRUNK, (2, 1, 3)), "increasing 1-based"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_another_shape_are_refused():
    model, _ = outline(config())
    assert isinstance(model, PlainMambaFeatures)
    with pytest.raises(ValueError, match=r"give \[batch, height, width, 3\]"):
        model(jnp.zeros((2, 40, 48)), Run())

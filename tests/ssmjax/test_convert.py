"""Official state_dicts into models and back: every name, bit for bit, or one list of problems."""

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

import ssmjax
from ssmjax.convert.load import official_shapes, to_torch_state_dict
from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.weights import flat_params
from tests.golden import recipe
from tests.oracles import golden
from tests.ssmjax.blank import blank_model

SIZES = {"depth": 3, "embed_dim": 16, "d_state": 2, "patch_size": 4, "img_size": 16}
VIM = ("vim_tiny_patch16_224", SIZES | {"num_classes": 3})
VIT = (
    "deit_tiny_patch16_224",
    {key: size for key, size in VIM[1].items() if key != "d_state"} | {"num_heads": 2},
)
PLAIN = ("plainmamba_l1", VIM[1] | {"conv_size": 5, "stem_convs": 2, "dwconv_blocks": (0, 2)})
COUNT = "backbone.patch_embed.stem.1.num_batches_tracked"


def blank(name, **overrides):
    """A model of zeros, without the seconds that drawing it takes."""
    graphdef, shapes = nnx.split(blank_model(name, **overrides))
    return nnx.merge(graphdef, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes))


def random_state(model, seed=0):
    """Weights by the recipe, and batch counts that differ."""
    state = recipe.state_dict(seed, list(official_shapes(model).items()))
    for number, name in enumerate(state):
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(2**31 - 1 - number)
    return state


def assert_same(got, want):
    assert list(got) == list(want)
    for name in want:
        assert (got[name].dtype, got[name].shape) == (want[name].dtype, want[name].shape), name
        assert got[name].tobytes() == want[name].tobytes(), name


@pytest.fixture(params=[VIM, PLAIN, VIT], ids=["vim", "plain_mamba", "vit"])
def model(request):
    name, sizes = request.param
    return blank(name, **sizes)


@pytest.mark.parametrize("name", golden.manifest_parameters())
def test_published_names(name):
    """Every entry of every published checkpoint, in its order, and nothing else."""
    manifest = golden.manifest(name)
    model = blank(name)
    state = {name: np.ones(shape, dtype) for name, shape, dtype in manifest["entries"]}
    ssmjax.load_torch_state_dict(model, state)
    for leaf in flat_params(model).values():
        chex.assert_trees_all_equal(leaf[...], 1)
    assert_same(to_torch_state_dict(model), state)
    assert (
        sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param)))
        == (manifest["num_parameters"])
    )


def test_round_trip(model):
    state = random_state(model)
    ssmjax.load_torch_state_dict(model, state)
    assert_same(to_torch_state_dict(model), state)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_widths_become_float32(model, dtype):
    state = random_state(model)
    narrow = {n: a if a.dtype == np.int64 else a.astype(dtype) for n, a in state.items()}
    ssmjax.load_torch_state_dict(model, narrow)
    want = {n: a if a.dtype == np.int64 else a.astype(np.float32) for n, a in narrow.items()}
    assert_same(to_torch_state_dict(model), want)


def test_one_error_lists_all_problems():
    model = blank(PLAIN[0], **PLAIN[1])
    state = random_state(model)
    del state["backbone.ln1.weight"], state["backbone.layers.2.dw.0.weight"]
    state["backbone.stray"] = np.zeros(3)
    state["head.fc.weight"] = state["head.fc.weight"].T
    # As large as the right one, and of another number of channels.
    state["backbone.layers.1.mamba.conv2d.weight"] = np.zeros((8, 4, 5, 5), np.float32)
    state["backbone.layers.0.mamba.D"][3] = np.nan
    state["backbone.layers.1.mamba.D"] = np.full(32, 1e300)
    state["head.fc.bias"] = np.zeros(3, np.int64)
    state[COUNT] = np.array(2**31)
    state[COUNT.replace("stem", "convs")] = np.array(1.5)
    state["backbone.layers.2.dw.1.running_var"] = -np.ones(16, np.float32)
    state["backbone.layers.2.norm.weight"] = [[1.0], [1.0, 2.0]]
    before = to_torch_state_dict(model)
    with pytest.raises(ValueError, match="^12 problems with the state_dict: ") as error:
        ssmjax.load_torch_state_dict(model, state)
    for problem in (
        "missing backbone.ln1.weight",
        "missing backbone.layers.2.dw.0.weight",
        "unused backbone.stray",
        "head.fc.weight has shape (16, 3), not (3, 16)",
        "backbone.layers.1.mamba.conv2d.weight has shape (8, 4, 5, 5), not (32, 1, 5, 5)",
        "backbone.layers.0.mamba.D holds values that are not finite",
        "backbone.layers.1.mamba.D holds values that are not finite",
        "backbone.layers.2.dw.1.running_var holds negative variances",
        "backbone.layers.2.norm.weight is no array",
        "head.fc.bias holds int64, not floating-point numbers",
        f"{COUNT} holds 2147483648, more than int32 can",
        f"{COUNT.replace('stem', 'convs')} holds 1.5, which is not a whole number",
    ):
        assert problem in str(error.value)
    assert_same(to_torch_state_dict(model), before)


def test_distilled_weights_are_refused():
    """They have a second token and a second head, and position embeddings of both tokens."""
    model = blank(VIT[0], **VIT[1])
    state = random_state(model)
    distilled = state | {"dist_token": state["cls_token"], "pos_embed": np.ones((1, 18, 16))}
    with pytest.raises(ValueError, match="holds dist_token: a distilled model .* without dist"):
        ssmjax.load_torch_state_dict(model, distilled)
    before = to_torch_state_dict(model)
    assert not any(before[name].any() for name in before)


@pytest.mark.parametrize("state", [None, [("head.bias", np.zeros(3))]])
def test_what_is_no_state_dict(state):
    with pytest.raises(ValueError, match="give a dict of official name to array"):
        ssmjax.load_torch_state_dict(blank(VIM[0], **VIM[1]), state)


def test_a_leaf_outside_the_table():
    model = blank(VIM[0], **VIM[1])
    model.extra = nnx.Param(jnp.zeros(2))
    with pytest.raises(ValueError, match="1 problem with the state_dict: unfilled extra"):
        ssmjax.load_torch_state_dict(model, random_state(blank(VIM[0], **VIM[1])))


@pytest.mark.parametrize("size", [(16, 16), (12, 12), (24, 16), (20, 36)])
@pytest.mark.parametrize("old", [16, 12])
def test_position_embeddings_are_resized(old, size):
    """The class token is no patch: index M // 2 of M patches in Vim, before and after, 0 in ViT."""
    grid, count = (old // 4, old // 4), (old // 4) ** 2
    H, W = size[0] // 4, size[1] // 4
    for (name, sizes), places in (
        (VIM, (count // 2, H * W // 2)),
        (VIT, (0, 0)),
        (PLAIN, None),
    ):
        state = random_state(blank(name, **sizes | {"img_size": old}))
        model = blank(name, **sizes | {"img_size": size})
        ssmjax.load_torch_state_dict(model, state, grid=grid)
        got = np.asarray(model.pos_embed[...])
        patches = state.get("backbone.pos_embed", state.get("pos_embed"))
        if places is not None:
            before, after = places
            chex.assert_trees_all_equal(got[:, after], patches[:, before])
            got = np.delete(got, after, axis=1)
            patches = np.delete(patches, before, axis=1)
        chex.assert_trees_all_equal(got, resize_pos_embed(patches, grid, (H, W)))


@pytest.mark.parametrize("size", [(8, 32), (32, 8)])
def test_as_many_patches_as_an_oblong_model_may_be_a_square(size):
    """16 patches: 4 x 4, or the model's own 2 x 8 or 8 x 2; it is asked for, and never guessed."""
    grid = size[0] // 4, size[1] // 4
    for name, sizes in (VIM, PLAIN, VIT):
        model, square = blank(name, **sizes | {"img_size": size}), blank(name, **sizes)
        state = random_state(model)
        with pytest.raises(
            ValueError, match="^1 problem .*its 16 patches may lie as .* or as "
        ) as e:
            ssmjax.load_torch_state_dict(model, state)
        for said in ("4 x 4", f"{grid[0]} x {grid[1]}", "grid=(H, W)", "--grid H W"):
            assert said in str(e.value)
        assert not any(leaf[...].any() for leaf in flat_params(model).values())
        ssmjax.load_torch_state_dict(model, state, grid=grid)
        assert_same(to_torch_state_dict(model), state)
        ssmjax.load_torch_state_dict(square, state, grid=grid)
        got, given = square.pos_embed[...], model.pos_embed[...]
        places = model.config.class_index, square.config.class_index
        want = resize_pos_embed(np.asarray(given), grid, (4, 4), class_token=places)
        chex.assert_trees_all_equal(got, want)
        ssmjax.load_torch_state_dict(square, state)  # A square of as many is what all take it for.
        assert_same(to_torch_state_dict(square), state)


def test_as_many_patches_as_an_oblong_model_that_make_no_square():
    for name, sizes in (VIM, PLAIN, VIT):
        model = blank(name, **sizes | {"img_size": (12, 16)})
        state = random_state(model)
        ssmjax.load_torch_state_dict(model, state)
        assert_same(to_torch_state_dict(model), state)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("vim_tiny_patch16_224", 14),
        ("vim_tiny_patch16_stride8_224", 27),
        ("plainmamba_l1", 14),
        ("deit_tiny_patch16_224", 14),
        ("vit_base_patch16_384", 24),
    ],
)
def test_grids_of_published_models_are_known(name, side):
    """By their number of patches, for images of any size but those of as many patches."""
    small = {"depth": 1, "embed_dim": 16} | ({"num_heads": 2} if "it_" in name else {"d_state": 2})
    small |= {"dwconv_blocks": ()} if name.startswith("plain") else {}
    state = random_state(blank(name, **small))
    model = blank(name, **small, img_size=(96, 160))
    ssmjax.load_torch_state_dict(model, state)
    other = blank(name, **small, img_size=(96, 160))
    ssmjax.load_torch_state_dict(other, state, grid=(side, side))
    for leaf, array in flat_params(model).items():
        chex.assert_trees_all_equal(array[...], flat_params(other)[leaf][...])
    assert model.config.grid != (side, side)
    if model.config.stride is None and side == 14:
        model = blank(name, **small, img_size=(112, 448))  # 7 x 28 are 196, too.
        with pytest.raises(ValueError, match="196 patches may lie as 7 x 28 or as 14 x 14"):
            ssmjax.load_torch_state_dict(model, state)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ((3, 4), "its 16 patches do not make the grid given, 3 x 4"),
        ((2,), r"grid is \(2,\); give rows and columns"),
        ((2, 8, 1), "give rows and columns"),
        ((-2, -8), "give rows and columns"),
        ((2.5, 8), "give rows and columns"),
    ],
)
def test_grids_that_are_none(grid, said):
    model = blank(VIM[0], **VIM[1] | {"img_size": (8, 32)})
    with pytest.raises(ValueError, match=said):
        ssmjax.load_torch_state_dict(model, random_state(model), grid=grid)


@pytest.mark.parametrize("shape", [(1, 15, 16), (1, 16, 8), (2, 9, 16), (9, 16), (1, 0, 16), ()])
def test_position_embeddings_of_no_square(model, shape):
    state = random_state(model)
    name = next(name for name in state if name.endswith("pos_embed"))
    state[name] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match="1 problem with") as error:
        ssmjax.load_torch_state_dict(model, state)
    assert f"{name} has shape {shape}, not {official_shapes(model)[name]}" in str(error.value)

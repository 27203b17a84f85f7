"""Weights of any floating-point kind become float32; all other kinds are refused."""

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

import ssmjax
from ssmjax.dense.pretrained import load_classifier
from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.preprocess import Preprocessing
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, save_weights
from tests.ssmjax.test_convert import COUNT, PLAIN, VIM, VIT, blank, random_state

HOW = Preprocessing((0.0,) * 3, (1.0,) * 3)
KINDS = [np.float16, ml_dtypes.bfloat16, np.float64]
MODELS = [VIM, PLAIN, VIT]
# Every kind of numbers in every model; quickly each of them once.
KINDS_OF_MODELS = pytest.mark.parametrize(
    ("kind", "name", "sizes"),
    [
        pytest.param(kind, *model, marks=() if i == j else pytest.mark.slow)
        for i, kind in enumerate(KINDS)
        for j, model in enumerate(MODELS)
    ],
)
DENSE_SIZES = {
    **{"depth": 2, "embed_dim": 16, "d_state": 2, "stem_convs": 1, "conv_size": 3, "patch_size": 4},
    **{"img_size": 16, "ends": (1, 2), "dwconv_blocks": (), "width": 8, "auxiliary_width": 4},
    "num_classes": 3,
}


def filled(name, sizes):
    """A model whose values no half-precision number has."""
    model = blank(name, **sizes)
    ssmjax.load_torch_state_dict(model, random_state(model))
    return model


def saved(path, model, name, overrides):
    save_weights(path, model, Metadata(name, overrides, (), HOW))
    return path


def changed(path, change):
    """The same file with what `change` makes of each array; these arrays."""
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
        arrays = {name: change(name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(arrays, path, metadata=metadata)
    return arrays


def rounded(path, kind):
    """The same file with its floats of a kind; what a model must then hold."""
    arrays = changed(path, lambda name, a: a if a.dtype == np.int32 else a.astype(kind))
    return {n: a if a.dtype == np.int32 else a.astype(np.float32) for n, a in arrays.items()}


def arrays_of(model):
    return {name: np.asarray(leaf[...]) for name, leaf in flat_params(model).items()}


def assert_exactly(model, want):
    """Values, and dtypes: float32, and int32 for counts."""
    got = arrays_of(model)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, want)
    chex.assert_trees_all_equal(got, want)
    assert {a.dtype.name for n, a in got.items() if not n.endswith(".count")} == {"float32"}


@pytest.fixture
def weights(tmp_path):
    """Write the weight file of a model of given sizes."""

    def write(name, sizes):
        model = filled(name, sizes)
        return saved(tmp_path / "a.safetensors", model, name, config_overrides(name, model.config))

    return write


@KINDS_OF_MODELS
def test_weight_files(weights, name, sizes, kind):
    path = weights(name, sizes)
    want = rounded(path, kind)
    assert_exactly(ssmjax.create_model(weights=path), want)
    # A fresh head, position embeddings of another grid.
    other = ssmjax.create_model(weights=path, num_classes=4, img_size=(16, 24))
    grid = {"old": (4, 4), "new": (4, 6)}
    places = {"vim": (8, 12), "deit": (0, 0)}.get(name.split("_")[0], (None, None))
    want["pos_embed"] = resize_pos_embed(want["pos_embed"], **grid, class_token=places)
    got = arrays_of(other)
    want |= {key: got[key] for key in ("head.kernel", "head.bias")}
    assert got["head.kernel"].shape[-1] == 4
    assert_exactly(other, want)


@pytest.mark.parametrize("kind", KINDS)
def test_weight_files_of_dense_models_and_their_classifiers(weights, tmp_path, kind):
    name, sizes = "upernet_plainmamba_l1", DENSE_SIZES
    model = nnx.eval_shape(lambda: ssmjax.create_model(name, **sizes))
    ssmjax.load_torch_state_dict(model, random_state(model))
    path = saved(tmp_path / "d.safetensors", model, name, config_overrides(name, model.config))
    want = rounded(path, kind)
    assert_exactly(ssmjax.create_model(weights=path), want)
    trunk = {n: sizes[n] for n in ("depth", "embed_dim", "d_state", "stem_convs", "conv_size")}
    trunk |= {"patch_size": 4, "img_size": 16, "dwconv_blocks": (), "num_classes": 5}
    classifier = weights("plainmamba_l1", trunk)
    given = rounded(classifier, kind)
    load_classifier(model, classifier)
    want = arrays_of(model)
    want |= {
        f"backbone.trunk.{n}": array
        for n, array in given.items()
        if n.split(".")[0] not in ("head", "norm")
    }
    want |= {f"backbone.norms.1.{n}": given[f"norm.{n}"] for n in ("scale", "bias")}
    assert_exactly(model, want)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.astype(ml_dtypes.float8_e4m3fn), "holds F8_E4M3, not floating-point numbers"),
        (lambda a: a.astype(ml_dtypes.float8_e5m2), "holds F8_E5M2, not floating-point numbers"),
        (lambda a: a.astype(np.int8), "head.bias holds int8, not floating-point numbers of 16, 32"),
        (lambda a: a.astype(bool), "head.bias holds bool, not floating-point"),
        (lambda a: a.astype(np.complex64), "head.bias holds complex64, not floating-point"),
        (lambda a: np.full(a.shape, 1e300), "head.bias holds values that are not finite"),
        (lambda a: np.full(a.shape, np.inf, np.float16), "head.bias holds values that are not"),
    ],
)
def test_what_no_weight_file_holds(weights, change, said):
    path = weights(*VIM)
    changed(path, lambda name, array: change(array) if name == "head.bias" else array)
    with pytest.raises(ValueError, match=said) as error:
        ssmjax.create_model(weights=path)
    assert str(error.value).count("\n") == 0 and len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (np.float16(3.5), "holds 3.5, which is not a whole number"),
        (np.float16(np.inf), "holds inf, which is not a whole number"),
        (np.float64(2**31), "more than int32"),
        (np.int64(2**31), "more than int32"),
        (np.True_, "holds bool, not whole numbers"),
    ],
)
def test_counts_are_whole(weights, count, said):
    path = weights(*PLAIN)
    name = "patch_embed.stem.0.norm.count"
    changed(path, lambda n, array: np.asarray(count) if n == name else array)
    with pytest.raises(ValueError, match=f"{name} holds .*{said.removeprefix('holds ')}"):
        ssmjax.create_model(weights=path)
    for seven in (np.int64(7), np.float16(7), np.float64(7)):
        changed(path, lambda n, array, seven=seven: np.asarray(seven) if n == name else array)
        got = flat_params(ssmjax.create_model(weights=path))[name][...]
        assert got.dtype == np.int32 and got == 7


def test_variances_are_not_negative(weights):
    path = weights(*PLAIN)
    changed(path, lambda n, a: -a if n == "patch_embed.stem.0.norm.var" else a)
    with pytest.raises(ValueError, match="stem.0.norm.var holds negative variances"):
        ssmjax.create_model(weights=path)


def test_files_are_float32_whatever_the_model_is(tmp_path):
    with jax.enable_x64(True):
        model = ssmjax.create_model(PLAIN[0], **PLAIN[1])
        assert flat_params(model)["pos_embed"][...].dtype == np.float64
        overrides = config_overrides(PLAIN[0], model.config)
        path = saved(tmp_path / "a.safetensors", model, PLAIN[0], overrides)
        want = {n: np.asarray(leaf[...], np.float32) for n, leaf in flat_params(model).items()}
    with safetensors.safe_open(path, "numpy") as file:
        for name in want:
            array = file.get_tensor(name)
            kind = np.int32 if name.endswith(".count") else np.float32
            assert array.dtype == kind
            chex.assert_trees_all_equal(array, want[name].astype(kind))


@KINDS_OF_MODELS
def test_state_dicts_are_resized_in_float32(name, sizes, kind):
    state = random_state(blank(name, **sizes))
    narrow = {n: a if a.dtype == np.int64 else a.astype(kind) for n, a in state.items()}
    wide = {n: a if a.dtype == np.int64 else a.astype(np.float32) for n, a in narrow.items()}
    models = [blank(name, **sizes | {"img_size": (12, 20)}) for _ in range(2)]
    for model, given in zip(models, (narrow, wide), strict=True):
        ssmjax.load_torch_state_dict(model, given, grid=(4, 4))
    assert_exactly(models[0], arrays_of(models[1]))


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_half_position_embeddings_resize_to_float32(kind):
    given = np.random.default_rng(0).normal(size=(1, 6, 4)).astype(kind)
    wide = given.astype(np.float64)
    want = resize_pos_embed(wide, (2, 3), (5, 4))
    got = resize_pos_embed(given, (2, 3), (5, 4))
    assert got.dtype == (np.float64 if kind == np.float64 else np.float32)
    chex.assert_trees_all_equal(got, want.astype(got.dtype))
    same = resize_pos_embed(given, (2, 3), (2, 3))
    assert same.dtype == got.dtype
    chex.assert_trees_all_equal(same, wide.astype(got.dtype))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.ones(3, ml_dtypes.float8_e4m3fn), "holds float8_e4m3fn, not floating-point numbers"),
        (np.ones(3, np.complex64), "holds complex64, not floating-point numbers of 16, 32 or 64"),
        (np.ones(3, bool), "holds bool, not floating-point"),
        (np.full(3, 3.5e38), "holds values that are not finite"),
        (np.array(["a"] * 3), "not floating-point"),
        (None, "holds object, not floating-point"),
    ],
)
def test_what_no_state_dict_holds(value, said):
    model = blank(*VIM[:1], **VIM[1])
    state = random_state(model) | {"head.bias": value}
    with pytest.raises(ValueError, match=f"^1 problem .*: head.bias .*{said.split(',')[0]}"):
        ssmjax.load_torch_state_dict(model, state)
    assert not any(array.any() for array in arrays_of(model).values())


def test_tensors_of_8_bits_are_refused():
    torch = pytest.importorskip("torch")
    model = blank(*PLAIN[:1], **PLAIN[1])
    state = random_state(model)
    state["head.fc.bias"] = torch.ones(3).to(torch.float8_e5m2)
    state["head.fc.weight"] = torch.ones(3, 16, dtype=torch.complex64)
    state[COUNT] = torch.tensor(4.5)
    with pytest.raises(ValueError, match="^3 problems with the state_dict") as error:
        ssmjax.load_torch_state_dict(model, state)
    for said in (
        "head.fc.bias holds float8_e5m2, not floating-point",
        "head.fc.weight holds complex64, not floating-point",
        f"{COUNT} holds 4.5, which is not a whole number",
    ):
        assert said in str(error.value)

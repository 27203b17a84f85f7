"""Models by name, their options, and weight files."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
from flax import nnx

import ssmjax
from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.preprocess import Preprocessing
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, load_weights, read_metadata, save_weights

NAME = "vim_tiny_patch16_224"
SIZES = {"depth": 2, "embed_dim": 16, "d_state": 2, "patch_size": 4, "img_size": 16}
PRUNE = ssmjax.PruneConfig(after_blocks=(1,), keep_ratio=0.5, importance="l2")
HOW = Preprocessing((0.1, 0.2, 0.3), (1.0, 1.0, 0.5))


def small(**options):
    return ssmjax.create_model(NAME, num_classes=3, **(SIZES | options))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a pruned model, and the model."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = small(seed=3, prune=PRUNE)
    config = config_overrides(NAME, model.config)
    metadata = Metadata(NAME, config, ("a", "b", "c"), HOW)
    save_weights(path, model, metadata)
    return path, model


def test_registered_models():
    for name in (
        "vim_tiny_patch16_224",
        "vim_small_patch16_224",
        "vim_base_patch16_224",
        "vim_tiny_patch16_stride8_224",
        "vim_small_patch16_stride8_224",
        "deit_small_patch16_224",
    ):
        assert name in ssmjax.list_models()


def test_seed_makes_the_parameters():
    once, again, other = small(seed=1), small(seed=1), small(seed=2)
    chex.assert_trees_all_equal(nnx.state(once), nnx.state(again))
    kernel = "blocks.mixer.in_proj.kernel"
    assert np.abs(flat_params(once)[kernel][...] - flat_params(other)[kernel][...]).max() > 1e-3
    first, second = flat_params(once)[kernel][...]
    assert np.abs(first - second).max() > 1e-3  # Blocks do not start alike.


def test_initialisation():
    params = {name: np.asarray(leaf[...]) for name, leaf in flat_params(small(depth=4)).items()}
    branch = "blocks.mixer.backward"
    chex.assert_trees_all_close(params[f"{branch}.A_log"][2, 5], np.log([1, 2]), rtol=1e-6)
    chex.assert_trees_all_equal(params[f"{branch}.D"], 1)
    delta = np.log1p(np.exp(params[f"{branch}.dt_bias"]))
    assert delta.min() >= 0.99e-3 and 5e-2 < delta.max() <= 1.01e-1
    assert 0.015 < params["blocks.mixer.in_proj.kernel"].std() < 0.025
    bound = 1 / np.sqrt(32 * 4)  # Kaiming uniform over fan-in 32, divided by sqrt(depth).
    out = np.abs(params["blocks.mixer.out_proj.kernel"]).max()
    assert 0.9 * bound < out <= bound


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 12, 16, 3\).*\[batch, 16, 16, 3\]"):
        small()(np.zeros((1, 12, 16, 3), np.float32))


def test_rectangular_images():
    model = small(img_size=(16, 24))
    assert model.config.grid == (4, 6)
    chex.assert_shape(model(np.zeros((2, 16, 24, 3), np.float32)), (2, 3))


def test_drop_path_acts_in_training_only():
    model = small(drop_path_rate=0.5)
    images = jax.random.normal(jax.random.key(0), (8, 16, 16, 3))
    chex.assert_trees_all_equal(model(images), model(images, key=jax.random.key(1)))
    trained = [model(images, train=True, key=jax.random.key(k)) for k in (1, 1, 2)]
    chex.assert_trees_all_equal(trained[0], trained[1])
    assert np.abs(trained[0] - trained[2]).max() > 0
    with pytest.raises(ValueError, match="needs a key"):
        model(images, train=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "vim_tny_patch16_224"}, "Did you mean vim_tiny_patch16_224"),
        ({"depht": 3}, "no option depht; choose among .*depth"),
        ({"depth": 0}, "depth is 0"),
        ({"img_size": 3}, "at least 4"),
        ({"img_size": (16, 2)}, "at least 4"),
        ({"img_size": (16, 16, 3)}, "img_size is"),
        ({"dtype": "float99"}, "choose one of float32, bfloat16, float64"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
        ({"prune": ssmjax.PruneConfig((1, 3), 0.5)}, "the model has 2 blocks"),
        ({"prune": "all"}, "prune is 'all'"),
        ({"prune": 0.8}, "prune is 0.8; give a PruneConfig"),
        ({"depth": True}, "depth is True"),
        ({"img_size": "224"}, "img_size is '224'; give pixels"),
        ({"img_size": None}, "img_size is None; give pixels"),
        ({"drop_path_rate": None}, "drop_path_rate is None"),
        ({"dtype": None}, "dtype is None; choose"),
        ({"name": ["vim"]}, "There is no model"),
        ({"name": "plainmamba_l1", "dwconv_blocks": 0}, "dwconv_blocks is 0; give a tuple"),
        ({"name": "deit_tiny_patch16_224"}, "no option d_state; choose among .*num_heads"),
        ({"num_heads": 4}, "no option num_heads; choose among .*d_state"),
    ],
)
def test_bad_options(options, said):
    arguments = {"name": NAME, **SIZES, **options}
    with pytest.raises(ValueError, match=said):
        ssmjax.create_model(**arguments)


def test_weights_bring_back_the_model(weights):
    path, model = weights
    again = ssmjax.create_model(weights=path)
    assert again.config == model.config
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    chex.assert_trees_all_equal(model(images), again(images))
    assert ssmjax.create_model(weights=path, prune=None).config.prune is None
    assert read_metadata(path).class_names == ("a", "b", "c")
    assert path.stat().st_mode & 0o077 == 0o044  # Others may read it.


def test_weights_of_another_shape_list_every_problem(weights):
    path, _ = weights
    with pytest.raises(ValueError, match="A_log is .*A_log is .*x_proj.kernel is"):
        ssmjax.create_model(weights=path, d_state=5)


def test_another_number_of_classes_gets_a_fresh_head(weights):
    path, model = weights
    new, other = (ssmjax.create_model(weights=path, num_classes=4, seed=seed) for seed in (0, 1))
    assert new.head.kernel.shape == (16, 4) and not np.asarray(new.head.bias[...]).any()
    assert np.abs(new.head.kernel[...] - other.head.kernel[...]).max() > 1e-3
    body, loaded = (nnx.state(m, nnx.Param) for m in (model, new))
    del body["head"], loaded["head"]
    chex.assert_trees_all_equal(body, loaded)


def test_weights_that_are_not_finite(tmp_path, weights):
    _, model = weights
    broken = small(seed=3)
    broken.head.bias[...] = np.array([0, np.nan, 0], np.float32)
    path = tmp_path / "nan.safetensors"
    metadata = Metadata(
        NAME,
        config_overrides(NAME, broken.config),
        tuple("abc"),
        Preprocessing((0,) * 3, (1,) * 3),
    )
    save_weights(path, broken, metadata)
    untouched = jax.tree.map(np.array, nnx.state(model))
    with pytest.raises(ValueError, match="head.bias holds values that are not finite"):
        load_weights(path, model, model.config)
    chex.assert_trees_all_equal(untouched, nnx.state(model))


def test_weights_for_another_image_size(weights):
    path, model = weights
    wide = ssmjax.create_model(weights=path, img_size=(16, 24))
    chex.assert_shape(wide(np.zeros((1, 16, 24, 3), np.float32)), (1, 3))
    got, old = (np.asarray(m.pos_embed[...]) for m in (wide, model))
    patches = resize_pos_embed(np.delete(old, 8, axis=1), (4, 4), (4, 6))
    chex.assert_trees_all_equal(np.delete(got, 12, axis=1), patches)
    chex.assert_trees_all_equal(got[:, 12], old[:, 8])


def test_broken_weight_files(tmp_path, weights):
    path, _ = weights
    cut, text = tmp_path / "cut.safetensors", tmp_path / "text.safetensors"
    cut.write_bytes(path.read_bytes()[:-50])
    text.write_text("hello")
    for file, said in (
        (cut, "cut short"),
        (text, "not a readable"),
        (tmp_path / "no", "no weight"),
    ):
        with pytest.raises(ValueError, match=said):
            ssmjax.create_model(weights=file)


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch, weights):
    path, model = weights
    target = tmp_path / "kept.safetensors"
    target.write_bytes(b"before")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_weights(target, model, read_metadata(path))
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_numpy_numbers_are_numbers():
    config = small(depth=np.int64(2), img_size=np.int32(16)).config
    assert config == small().config
    prune = ssmjax.PruneConfig([np.int64(1)], np.float32(0.8))
    assert prune == ssmjax.PruneConfig((1,), 0.8) and prune.count(10) == 8


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="give at least one image"):
        small()(np.zeros((0, 16, 16, 3), np.float32))


def test_with_prune_copies_and_changes_nothing():
    dense = small()
    pruned = dense.with_prune(PRUNE)
    assert dense.config == dataclasses.replace(pruned.config, prune=None)
    chex.assert_trees_all_equal(nnx.state(dense), nnx.state(pruned))
    pruned.head.bias[...] = np.ones(3, np.float32)
    assert not np.asarray(dense.head.bias[...]).any()

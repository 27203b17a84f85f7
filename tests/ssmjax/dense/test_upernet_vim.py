"""UperNet on Vim against PyTorch and a masked run of all cells; its names and its classifier."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ssmjax
from ssmjax.analysis.flops import count_parameters
from ssmjax.convert.load import load_torch_state_dict, shapes_of, table, to_torch_state_dict
from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.dense.backbones.vim import VimFeaturesConfig
from ssmjax.dense.config import PAPER, PRESETS
from ssmjax.dense.flops import flops
from ssmjax.dense.pretrained import load_classifier
from ssmjax.dense.registry import create_model
from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.models.run import Run
from ssmjax.preprocess import Preprocessing
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, save_weights
from tests.golden import recipe
from tests.oracles.compare import assert_close
from tests.oracles.upernet_vim_oracle import upernet
from tests.oracles.vim_oracle import Prune

HOW = Preprocessing((0.0,) * 3, (1.0,) * 3)
TRUNK = {"depth": 4, "embed_dim": 16, "d_state": 4, "patch_size": 8, "img_size": 48}
SIZES = {**TRUNK, "ends": (1, 2, 3, 4), "width": 8, "auxiliary_width": 4, "num_classes": 3}
SIZES["drop_path_rate"] = 0.0
DENSE = Prune()


def outline(**changes):
    return nnx.eval_shape(lambda: create_model("upernet_vim_tiny", **{**SIZES, **changes}))


@functools.cache
def weights():
    model = outline()
    return recipe.state_dict(7, list(shapes_of(model, table(model.config)).items()))


def build(prune=DENSE, **changes):
    if prune is not DENSE:
        changes["prune"] = DensePruneConfig(**dataclasses.asdict(prune))
    model = outline(**changes)
    load_torch_state_dict(model, weights())
    return model


@jax.jit
def run(model, images):
    maps = model.backbone(images, Run()).maps
    return (
        maps,
        model.head.classes(model.head(maps)),
        model.auxiliary.classes(model.auxiliary(maps)),
    )


CASES = [
    # Another grid, 6 x 8; the last pixels are no patch.
    pytest.param(DENSE, "sum", (48, 67), marks=pytest.mark.slow),
    pytest.param(Prune((2,), 0.6), "mixer", (48, 48), marks=pytest.mark.slow),
    (Prune((1, 3), 0.7, "l1", "none", "aligned"), "sum", (48, 48)),
]


@pytest.mark.parametrize(("prune", "shown", "sides"), CASES)
def test_against_pytorch(prune, shown, sides):
    images = recipe.images(5, (2, *sides, 3))
    want = upernet(weights(), images[:, :, : sides[1] // 8 * 8], SIZES["ends"], shown, prune)
    assert min(want.margins, default=1) > 1e-6, "a choice too close to test"
    with jax.enable_x64(True):
        maps, logits, auxiliary = run(build(prune, dtype="float64", shown=shown), images)
    got, wanted = (*maps, logits, auxiliary), (*want.maps, want.logits, want.auxiliary)
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(ours, np.moveaxis(np.asarray(theirs), 1, -1), 1e-9)


def test_keeping_all_is_dense_bit_for_bit():
    images = recipe.images(5, (1, 48, 48, 3))
    maps = jax.jit(lambda model: model.backbone(images, Run()).maps)
    chex.assert_trees_all_equal(maps(build()), maps(build(Prune((1, 2), 1))))


def test_drop_path_leaves_a_maps_last_mixer_alone():
    images, model = recipe.images(5, (4, 48, 48, 3)), build(drop_path_rate=0.99)

    @jax.jit
    def after_all(model, key):
        trunk = model.backbone.trunk
        run = Run(key, train=True)
        tokens = trunk.begin(images, run)
        for number in range(4):
            tokens = trunk.run_range(number, tokens, run)
        return tokens.stream

    _, hidden, undropped = after_all(model, jax.random.key(0))
    assert (np.abs(hidden).max(axis=(1, 2)) == 0).any()
    assert (np.abs(undropped).max(axis=(1, 2)) > 0).all()


def test_official_names_and_sizes():
    """The official log counts the parameters of ViM-T at 1024 x 1024 pixels."""
    model = nnx.eval_shape(lambda: create_model("upernet_vim_tiny", img_size=1024))
    assert count_parameters(model) == 12_901_100
    shapes = shapes_of(model, table(model.config))
    assert shapes["backbone.pos_embed"] == (1, 4096, 192)
    assert shapes["backbone.layers.23.mixer.conv1d_b.weight"] == (384, 1, 4)
    assert shapes["decode_head.bottleneck.conv.weight"] == (192, 960, 3, 3)
    assert shapes["auxiliary_head.convs.0.conv.weight"] == (256, 192, 3, 3)
    assert not any("cls_token" in name for name in shapes)
    assert set(flat_params(model)) == {entry.ours for entry in table(model.config)}
    small = PRESETS["upernet_vim_small"]
    assert small.width == small.backbone.trunk.embed_dim == 384
    assert isinstance(small.backbone, VimFeaturesConfig)
    assert small.backbone.shown == "sum" and small.backbone.ends == (6, 12, 18, 24)


def test_there_and_back(tmp_path):
    model = build(Prune((2,), 0.5))
    path = tmp_path / "a.safetensors"
    overrides = config_overrides("upernet_vim_tiny", model.config)
    save_weights(path, model, Metadata("upernet_vim_tiny", overrides, (), HOW))
    again = create_model(weights=path)
    assert again.config == model.config
    back = to_torch_state_dict(again)
    assert list(back) == list(weights())
    for name, array in weights().items():
        chex.assert_trees_all_equal(back[name], array)


@pytest.mark.slow
def test_backbone_of_a_classifier(tmp_path):
    """The class token goes, whose embedding is the 19th of 37."""
    sizes = {**TRUNK, "num_classes": 5}
    classifier = ssmjax.create_model("vim_tiny_patch16_224", seed=3, **sizes)
    path = tmp_path / "c.safetensors"
    save_weights(path, classifier, Metadata("vim_tiny_patch16_224", sizes, (), HOW))
    model = build()
    load_classifier(model, path)
    given, trunk = flat_params(classifier), flat_params(model.backbone.trunk)
    embedding = np.asarray(given.pop("pos_embed")[...])
    chex.assert_trees_all_equal(
        trunk.pop("pos_embed")[...], np.concatenate([embedding[:, :18], embedding[:, 19:]], axis=1)
    )
    assert set(given) - set(trunk) == {"cls_token", "head.kernel", "head.bias"}
    for name, leaf in trunk.items():
        chex.assert_trees_all_equal(leaf[...], given[name][...])


def test_backbone_of_an_oblong_classifier(tmp_path):
    """Of 3 x 12 patches, as many as the backbone's 6 x 6: resized without the class token."""
    name, sizes = "vim_tiny_patch16_224", {**TRUNK, "img_size": (24, 96), "num_classes": 5}
    classifier = nnx.eval_shape(lambda: ssmjax.create_model(name, **sizes))
    shapes = shapes_of(classifier, table(classifier.config))
    state = recipe.state_dict(3, list(shapes.items()))
    load_torch_state_dict(classifier, state, grid=(3, 12))
    path = tmp_path / "c.safetensors"
    save_weights(path, classifier, Metadata(name, sizes, (), HOW))
    model = build()
    load_classifier(model, path)
    patches = np.delete(state["pos_embed"], 18, axis=1)
    chex.assert_trees_all_equal(
        model.backbone.trunk.pos_embed[...], resize_pos_embed(patches, (3, 12), (6, 6))
    )


def test_flops_by_hand():
    """Of 64 x 64 pixels: 16 patches, and maps of 256, 64, 16 and 4 cells."""
    config = dataclasses.replace(PRESETS["upernet_vim_tiny"], width=8, num_classes=3)
    counted = flops(config, (64, 64))
    D, C = 192, 8
    assert counted.backbone["pyramid"] == (16 * 4 + 64 * 4 + 16 * 4) * D * D
    pyramid = (1 + 4 + 9 + 36) * D * C + 4 * 9 * (D + 4 * C) * C
    levels = (256 + 64 + 16) * (D * C + 9 * C * C)
    assert counted.heads["head"] == pyramid + levels + 256 * (9 * 4 * C * C + C * 3)
    pruned = dataclasses.replace(config.backbone, prune=PAPER["upernet_vim_tiny"])
    saved = flops(dataclasses.replace(config, backbone=pruned), (64, 64))
    assert saved.heads == counted.heads
    assert saved.backbone["pyramid"] == counted.backbone["pyramid"]
    assert saved.total < counted.total


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ends": (2, 4)}, "give 4 blocks, one for each map"),
        ({"shown": "residual"}, "choose one of mixer, sum"),
        ({"prune": DensePruneConfig((1,), 0.5)}, "choose compact or aligned"),
        ({"auxiliary_map": 4}, "must be from -4 to -1"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        outline(**changes)


def test_images_of_a_single_patch_are_refused():
    with pytest.raises(ValueError, match="at least 2 patches of 8 pixels"):
        build().backbone(jnp.zeros((1, 15, 48, 3)), Run())

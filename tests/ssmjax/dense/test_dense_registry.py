"""Dense models by name, their weight files, official names, and backbones from classifiers."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ssmjax
from ssmjax import load_torch_state_dict, to_torch_state_dict
from ssmjax.convert.load import official_shapes
from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.dense.config import PRESETS
from ssmjax.dense.heads.box_head import BoxHead
from ssmjax.dense.heads.fpn import FPN
from ssmjax.dense.heads.mask_head import MaskHead
from ssmjax.dense.heads.rpn import RPN
from ssmjax.dense.mask_rcnn import MaskRCNN
from ssmjax.dense.pretrained import load_classifier
from ssmjax.dense.registry import create_model, list_models
from ssmjax.dense.retinanet import RetinaHead, RetinaNet
from ssmjax.models.config import options
from ssmjax.preprocess import Preprocessing
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, save_weights
from tests.oracles import downstream as golden

HOW = Preprocessing((0.0,) * 3, (1.0,) * 3)
TRUNK = {"depth": 2, "embed_dim": 16, "d_state": 2, "stem_convs": 1, "conv_size": 3}
SMALL = {
    "maskrcnn": {"heads": 2, "prior_width": 4, "width": 8, "hidden": 8, "num_classes": 3},
    "retinanet": {"heads": 2, "prior_width": 4, "width": 8, "num_classes": 3},
    "upernet": {"width": 8, "auxiliary_width": 4, "num_classes": 3},
}


def small(family, size="l1", seed=1, **changes):
    """A small model, filled by the recipe."""
    sizes = {**TRUNK, "ends": (1, 2), "dwconv_blocks": (), **SMALL[family], **changes}
    return filled(lambda: create_model(f"{family}_plainmamba_{size}", **sizes), seed)


def filled(create, seed):
    model = nnx.eval_shape(create)
    state = golden.recipe_downstream.state_dict(seed, list(official_shapes(model).items()))
    load_torch_state_dict(model, state)
    return model


def arrays(model):
    return {name: np.asarray(leaf[...]) for name, leaf in flat_params(model).items()}


def stored(path, model, name):
    overrides = config_overrides(name, model.config)
    save_weights(path, model, Metadata(name, overrides, (), HOW))


def test_names():
    families = ("maskrcnn", "retinanet", "upernet")
    want = [f"{family}_plainmamba_l{size}" for family in families for size in (1, 2, 3)]
    assert list_models() == sorted([*want, "upernet_vim_small", "upernet_vim_tiny"])


@pytest.mark.parametrize(
    "name",
    [
        name if name.endswith("l1") else pytest.param(name, marks=pytest.mark.slow)
        for name in PRESETS
        if "plainmamba" in name
    ],
)
def test_official_names_and_shapes(name):
    """Every entry of every published checkpoint, in its order, and nothing else."""
    manifest = golden.manifest(name.replace("plainmamba_", ""))
    model = nnx.eval_shape(lambda: create_model(name))
    # Of one value each, however large.
    state = {
        theirs: np.broadcast_to(np.ones((), dtype), shape)
        for theirs, shape, dtype in manifest["manifest"]
    }
    load_torch_state_dict(model, state)
    for leaf in flat_params(model).values():
        chex.assert_trees_all_equal(leaf[...], 1)
    back = to_torch_state_dict(model)
    assert list(back) == list(state)
    for theirs, array in state.items():
        assert (back[theirs].dtype, back[theirs].shape) == (array.dtype, array.shape), theirs
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(leaf.size for leaf in parameters) == manifest["num_params"]


@pytest.mark.parametrize(
    "family",
    [f if f == "upernet" else pytest.param(f, marks=pytest.mark.slow) for f in SMALL],
)
def test_there_and_back(family, tmp_path):
    """Through a weight file, and through an official state_dict."""
    prune = DensePruneConfig((1,), 0.5)
    model, name = small(family, prune=prune, seed=1), f"{family}_plainmamba_l1"
    stored(tmp_path / "a.safetensors", model, name)
    again = create_model(weights=tmp_path / "a.safetensors")
    assert again.config == model.config and again.config.backbone.prune == prune
    other = small(family, seed=2)
    load_torch_state_dict(other, to_torch_state_dict(model))
    chex.assert_trees_all_equal(arrays(model), arrays(again), arrays(other))
    dense = create_model(weights=tmp_path / "a.safetensors", prune=None)
    assert dense.config.backbone.prune is None
    with pytest.raises(ValueError, match="does not fit this model"):
        create_model(weights=tmp_path / "a.safetensors", width=4)


def test_the_flat_layer_reads_channels_first():
    model = small("maskrcnn")
    assert isinstance(model, MaskRCNN)
    kernel = model.box_head.hidden.kernel[...].reshape(7, 7, 8, 8)
    theirs = to_torch_state_dict(model)["roi_head.bbox_head.shared_fcs.0.weight"]
    chex.assert_trees_all_equal(theirs.reshape(8, 8, 7, 7).transpose(2, 3, 1, 0), kernel)


@pytest.mark.parametrize("family", ["retinanet", "upernet"])
def test_backbone_of_a_classifier(family, tmp_path):
    changes = {**TRUNK, "dwconv_blocks": (0,), "num_classes": 5, "img_size": (64, 96)}
    classifier = filled(lambda: ssmjax.create_model("plainmamba_l2", **changes), 2)
    overrides = {**changes, "dwconv_blocks": [0]}
    path = tmp_path / "c.safetensors"
    metadata = Metadata("plainmamba_l2", overrides, (), HOW)
    save_weights(path, classifier, metadata)
    model = small(family, "l2", dwconv_blocks=(0,), img_size=(64, 96), seed=3)
    before, given = arrays(model), arrays(classifier)
    load_classifier(model, path)
    after = arrays(model)
    for name, array in given.items():
        part = name.split(".")[0]
        if part not in ("head", "norm"):
            chex.assert_trees_all_equal(after.pop(f"backbone.trunk.{name}"), array)
        elif part == "norm" and family == "upernet":
            ours = name.replace("norm.", "backbone.norms.1.")
            chex.assert_trees_all_equal(after.pop(ours), array)
    assert after
    chex.assert_trees_all_equal(after, {name: before[name] for name in after})
    model = small(family, "l2", dwconv_blocks=(0,), embed_dim=32)
    unchanged = arrays(model)
    with pytest.raises(ValueError, match="is not the backbone"):
        load_classifier(model, path)
    chex.assert_trees_all_equal(arrays(model), unchanged)


def test_first_values():
    """What the published training starts from."""
    size = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    retina = RetinaHead(8, 3, **size)
    assert retina.classes.bias is not None
    chex.assert_trees_all_close(retina.classes.bias[...], -np.log(99), rtol=1e-6)
    box = BoxHead(32, 64, 80, **size)
    for kernel, std in (
        (retina.box_tower.convs[0].kernel, 0.01),
        (RPN(32, **size).tower.convs[0].kernel, 0.01),
        (box.convs[0].conv.kernel, np.sqrt(2 / (9 * 32))),
        (box.hidden.kernel, np.sqrt(2 / (49 * 32 + 64))),
        (box.classes.kernel, 0.01),
        (box.deltas.kernel, 0.001),
        (MaskHead(32, 3, **size).tower.convs[3].kernel, np.sqrt(2 / (9 * 32))),
        (FPN(32, 32, 3, extra_convs=True, **size).extra[1].conv.kernel, np.sqrt(2 / (9 * 64))),
    ):
        chex.assert_trees_all_close(np.std(kernel[...]), std, rtol=5 / np.sqrt(2 * kernel.size))


def test_options_are_the_outer_ones():
    config = PRESETS["upernet_plainmamba_l3"]
    known = options(config)
    assert known["num_classes"] == 150 and known["depth"] == 36 and known["prune"] is None
    assert known["drop_path_rate"] == 0.3 and known["ends"] == (9, 18, 27, 36)
    paper = nnx.eval_shape(lambda: create_model("upernet_plainmamba_l3", prune="paper")).config
    schedule = DensePruneConfig((5, 11, 17, 23), 0.75)
    assert paper.backbone == dataclasses.replace(config.backbone, prune=schedule)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "upernet_plainmamba_l4"}, "Did you mean upernet_plainmamba_l"),
        ({"wide": 3}, "has no option wide; choose among auxiliary_map"),
        ({"width": 0}, "width is 0; it must be a whole number of at least 1"),
        ({"dropout": 1}, "dropout is 1; it must be in"),
        ({"depth": 4}, "the last 4"),
        ({"prune": ssmjax.PruneConfig((1,), 0.5)}, "give a DensePruneConfig"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        create_model(**{"name": "upernet_plainmamba_l1", **changes})


@pytest.mark.parametrize("family", [pytest.param("maskrcnn", marks=pytest.mark.slow), "retinanet"])
def test_pruned_detector(family):
    """On images that have padding, each of another size."""
    model = small(family, prune=DensePruneConfig((1,), 0.5))
    if family == "retinanet":  # By the recipe its scores are below the threshold.
        assert isinstance(model, RetinaNet)
        bias = model.head.classes.bias
        assert bias is not None
        bias.set_value(bias[...] + 4)
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    shapes = jnp.array([[64, 40], [50, 64]])
    options = {"masks": True} if family == "maskrcnn" else {}
    found = jax.jit(lambda model: model.detect(images, shapes, **options))(model)
    chex.assert_shape(found.boxes, (2, 100, 4))
    assert found.valid.any()
    for boxes, valid, limit in zip(found.boxes, found.valid, shapes, strict=True):
        low, high = np.split(np.asarray(boxes)[np.asarray(valid)], 2, axis=1)
        assert (low >= 0).all() and (low <= high).all() and (high <= limit[::-1]).all()
    if family == "maskrcnn":
        chex.assert_shape(found.masks, (2, 100, 28, 28))
        assert ((found.masks > 0) & (found.masks < 1)).all()

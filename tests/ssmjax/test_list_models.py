"""One list of names for classifiers and models of dense tasks, and one function that makes them."""

import fnmatch

import pytest
from flax import nnx

import ssmjax
from ssmjax import dense
from ssmjax.dense.config import PAPER
from ssmjax.registry import create_classifier, entry, published_schedule

TRUNK = {"depth": 2, "embed_dim": 16, "d_state": 2, "stem_convs": 1, "conv_size": 3}
SMALL = {**TRUNK, "ends": (1, 2), "dwconv_blocks": (), "heads": 2, "prior_width": 4, "width": 8}


def outline(create, name, **options):
    """A small model as shapes without values."""
    return nnx.eval_shape(lambda: create(name, **SMALL, **options))


def test_all_names_are_listed_classifiers_first():
    names, others = ssmjax.list_models(), dense.list_models()
    classifiers = names[: -len(others)]
    assert names == [*sorted(classifiers), *others] and len(set(names)) == len(names)
    assert all(issubclass(entry(name).model, ssmjax.Backbone) for name in classifiers)


@pytest.mark.parametrize("filter", ["*plainmamba*", "vim_*_224", "plainmamba_l1", "?etina*", "no*"])
def test_a_filter_of_names(filter):
    want = [name for name in ssmjax.list_models() if fnmatch.fnmatch(name, filter)]
    assert ssmjax.list_models(filter) == want


def test_a_filter_passes_over_tasks():
    found = ssmjax.list_models("*plainmamba_l1")
    kinds = ("maskrcnn", "retinanet", "upernet")
    assert found == ["plainmamba_l1", *(f"{kind}_plainmamba_l1" for kind in kinds)]


def test_one_function_makes_dense_models_too():
    name = "maskrcnn_plainmamba_l1"
    one, other = (outline(create, name) for create in (ssmjax.create_model, dense.create_model))
    assert type(one) is type(other) and one.config == other.config
    prune = dense.DensePruneConfig((1,), 0.5)
    assert outline(ssmjax.create_model, name, prune=prune).config.backbone.prune == prune
    assert published_schedule(name) == PAPER[name]
    with pytest.raises(ValueError, match="give a DensePruneConfig"):
        ssmjax.create_model(name, prune=ssmjax.PruneConfig((1,), 0.5))


def test_one_function_counts_flops_of_all():
    name = "upernet_plainmamba_l1"
    sizes = {option: SMALL[option] for option in SMALL if option not in ("heads", "prior_width")}
    model = nnx.eval_shape(lambda: ssmjax.create_model(name, img_size=(64, 96), **sizes))
    assert ssmjax.flops(model) == dense.flops(model.config, (64, 96))
    assert ssmjax.flops(model, (32, 64, 3)) == dense.flops(model.config, (32, 64))
    with pytest.raises(ValueError, match=r"takes images of 3 channels, as \(32, 64, 3\)"):
        ssmjax.flops(model, (32, 64, 4))


def test_what_takes_one_kind_refuses_the_other():
    wrong = "is a model of another kind; choose one of"
    with pytest.raises(ValueError, match=f"^upernet_vim_tiny {wrong} deit_base_patch16_224, "):
        create_classifier("upernet_vim_tiny")
    with pytest.raises(ValueError, match=f"^plainmamba_l1 {wrong} maskrcnn_plainmamba_l1, "):
        dense.create_model("plainmamba_l1")
    with pytest.raises(ValueError, match="^There is no model 'upernet_vim_tny'; .* Did you"):
        ssmjax.create_model("upernet_vim_tny")

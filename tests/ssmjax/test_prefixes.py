"""Prefixes before the names of weights go where they may; long lists of problems are cut."""

import string

import chex
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import ssmjax
from ssmjax import imagenet
from ssmjax.convert.load import official_shapes, to_torch_state_dict
from ssmjax.fitting import MisfitError, unwrapped
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, save_weights
from tests.ssmjax.test_convert import PLAIN, VIM, VIT, assert_same, blank, random_state

PREFIXES = [
    "_orig_mod.",
    "model.",
    "module.",
    "backbone.",
    "module.model.",
    "_orig_mod.module.",
    "module._orig_mod.model.backbone.",
    "net.encoder.",
]
MODELS = pytest.mark.parametrize(
    ("name", "sizes"), [VIM, PLAIN, VIT], ids=["vim", "plain_mamba", "vit"]
)
PART = st.text(string.ascii_lowercase, min_size=1, max_size=3)
NAME = st.lists(PART, min_size=1, max_size=4).map(".".join)


@MODELS
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_goes(name, sizes, prefix):
    model = blank(name, **sizes)
    state = random_state(model)
    ssmjax.load_torch_state_dict(model, {prefix + key: array for key, array in state.items()})
    assert_same(to_torch_state_dict(model), state)


@MODELS
def test_a_prefix_of_all_but_the_head_goes(name, sizes):
    model = blank(name, **sizes)
    state = random_state(model)
    given = {key if key.startswith("head") else f"encoder.{key}": a for key, a in state.items()}
    assert len(given) == len(state) and set(given) != set(state)
    ssmjax.load_torch_state_dict(model, given)
    assert_same(to_torch_state_dict(model), state)


@MODELS
def test_wrappers_of_parts_go(name, sizes):
    """Blocks that are compiled or recomputed one by one, of a model that is compiled."""
    model = blank(name, **sizes)
    state = random_state(model)
    wrapped = {}
    for key, array in state.items():
        for part in ("layers.1.", "blocks.1."):
            key = key.replace(part, f"{part}_orig_mod._checkpoint_wrapped_module.")
        wrapped[f"module.{key}"] = array
    ssmjax.load_torch_state_dict(model, wrapped)
    assert_same(to_torch_state_dict(model), state)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_is_wrong_beside_a_prefix_is_one_short_line(prefix):
    model = blank(VIM[0], **VIM[1])
    state = random_state(model)
    state["head.more"] = state.pop("head.bias")
    state["norm_f.weight"] = np.ones(17, np.float32)
    with pytest.raises(MisfitError) as error:
        ssmjax.load_torch_state_dict(model, {prefix + key: a for key, a in state.items()})
    assert str(error.value) == (
        f"3 problems with the state_dict (without the prefix {prefix} of the names): missing "
        "head.bias; norm_f.weight has shape (17,), not (16,); unused head.more."
    )
    assert not any(leaf[...].any() for leaf in flat_params(model).values())


def test_what_belongs_to_a_name_stays():
    """`backbone.` is a part of PlainMamba's own names, once."""
    model = blank(PLAIN[0], **PLAIN[1])
    state = random_state(model)
    assert unwrapped(state, official_shapes(model)) == (state, "")
    doubled = {f"backbone.{key}": array for key, array in state.items()}
    got, prefix = unwrapped(doubled, official_shapes(model))
    assert list(got) == list(state) and prefix == "backbone."


@given(wanted=st.sets(NAME, min_size=1, max_size=20), prefix=NAME)
def test_any_prefix_goes(wanted, prefix):
    """Where no name fits with it; each array stays with its name."""
    arrays = {f"{prefix}.{name}": number for number, name in enumerate(sorted(wanted))}
    if not wanted & set(arrays):
        got, gone = unwrapped(arrays, wanted)
        assert got == {name: number for number, name in enumerate(sorted(wanted))}
        assert gone == f"{prefix}."


@given(names=st.sets(NAME, max_size=20), wanted=st.sets(NAME, max_size=20))
def test_no_array_is_lost_and_none_fits_worse(names, wanted):
    arrays = dict.fromkeys(names)
    got, gone = unwrapped(arrays, wanted)
    assert len(got) == len(arrays)
    assert len(wanted & set(got)) >= len(wanted & names)
    assert bool(gone) == (set(got) != names)


def test_many_problems_are_counted_and_kept():
    model = blank(VIM[0], **VIM[1] | {"depth": 12})
    names = list(official_shapes(model))
    state = {f"other.{number}": np.zeros(1) for number in range(400)}
    state["x" * 5000] = np.zeros(1)
    state |= {name: np.zeros((1, 2, 3, 5)) for name in names if ".mixer." in name}
    missing = [name for name in names if ".mixer." not in name]
    with pytest.raises(MisfitError) as error:
        ssmjax.load_torch_state_dict(model, state)
    said = str(error.value)
    count = len(missing) + 401 + sum(".mixer." in name for name in names)
    assert said.startswith(f"{count} problems with the state_dict: missing cls_token, pos_embed, ")
    assert f" and {len(missing) - 3} more; layers.0.mixer.A_log has shape (1, 2, 3, 5), " in said
    assert "; unused other.0, other.1, other.2 and 398 more" in said
    assert len(said) < 700 and len(error.value.problems) == count
    for problem in (f"missing {missing[-1]}", "unused other.399", f"unused {'x' * 5000}"):
        assert problem in error.value.problems


@pytest.fixture
def ours(tmp_path):
    """A weight file, its arrays, and how to write it with others."""
    model = blank(VIM[0], **VIM[1])
    ssmjax.load_torch_state_dict(model, random_state(model))
    path = tmp_path / "a.safetensors"
    overrides = config_overrides(VIM[0], model.config)
    save_weights(path, model, Metadata(VIM[0], overrides, (), imagenet.preprocessing(VIM[0])))
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()

    def write(arrays):
        safetensors.numpy.save_file(arrays, path, metadata=metadata)
        return path

    return safetensors.numpy.load_file(path), write


@pytest.mark.parametrize("prefix", PREFIXES)
def test_weight_files_with_a_prefix(ours, prefix):
    arrays, write = ours
    path = write({prefix + name: array for name, array in arrays.items()})
    got = flat_params(ssmjax.create_model(weights=path))
    chex.assert_trees_all_equal({n: leaf[...] for n, leaf in got.items()}, arrays)
    other = flat_params(ssmjax.create_model(weights=path, num_classes=5, img_size=8))
    chex.assert_trees_all_equal(other["norm.scale"][...], arrays["norm.scale"])
    assert other["head.bias"].shape == (5,)


def test_weight_files_that_do_not_fit_say_so_in_short(ours):
    arrays, write = ours
    path = write({f"_orig_mod.{n}": a for n, a in arrays.items() if n != "norm.scale"})
    with pytest.raises(MisfitError) as error:
        ssmjax.create_model(weights=path)
    assert str(error.value) == (
        f"{path} does not fit this model (without the prefix _orig_mod. of the names): missing "
        "norm.scale."
    )
    path = write({f"{'a' * 40_000}.{n}": a for n, a in arrays.items() if n != "norm.scale"})
    with pytest.raises(MisfitError, match="without the prefix a{300}") as error:
        ssmjax.create_model(weights=path)
    assert len(str(error.value)) < 500 + len(str(path))
    path = write({f"thing_{number}": np.zeros(2, np.float32) for number in range(500)})
    with pytest.raises(
        MisfitError, match="missing .* and .* more; unknown thing_0, .* 497"
    ) as error:
        ssmjax.create_model(weights=path)
    assert len(str(error.value)) < 400 + len(str(path))


def test_a_file_of_a_later_version(ours):
    arrays, _ = ours
    path = ours[1](arrays)
    with safetensors.safe_open(path, "np") as file:
        text = file.metadata()["ssmjax"]
    for there, said in (
        (
            text.replace('"depth"', '"hoops": 3, "depth"'),
            "describes its model by hoops, which this",
        ),
        (
            text.replace('"depth"', '"prune": {"after_blocks": [1], "speed": 2}, "depth"'),
            "describes its pruning in a way that this version does not know",
        ),
    ):
        assert there != text
        safetensors.numpy.save_file(arrays, path, metadata={"ssmjax": there})
        with pytest.raises(ValueError, match=said):
            ssmjax.create_model(weights=path)

"""Dense models against the official PyTorch numbers, and every published list of weights."""

import functools
from contextlib import nullcontext

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx

import ssmjax
from tests.oracles import golden, vim_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.blank import blank_model
from tests.variants import in_all_variants

TOLERANCES = golden.tolerances()
# Cases of published sizes run the registered config, so that it is tested too.
REGISTERED = {
    "deit_tiny": "deit_tiny_patch16_224",
    "plainmamba_l1": "plainmamba_l1",
    "plainmamba_l1_192x256": "plainmamba_l1",
    "plainmamba_l2": "plainmamba_l2",
    "vim_small": "vim_small_patch16_224",
    "vim_tiny": "vim_tiny_patch16_224",
    "vim_tiny_stride8": "vim_tiny_patch16_stride8_224",
}
SOME = {
    "plainmamba": "plainmamba_l1",
    "vim": "vim_tiny_patch16_224",
    "vit": "deit_tiny_patch16_224",
}
QUICK = ("deit_tiny", "plainmamba_micro", "vim_micro")
MICRO = ("plainmamba_micro", "vim_micro", "vit_micro")


@functools.cache
def _case(name):
    return golden.load(name)


def _micro_options(case):
    """The options of a size that nobody published."""
    if case.family == "vim":
        same = ("patch_size", "stride", "depth", "embed_dim", "d_state", "num_classes")
        return {name: case.config[name] for name in same}
    if case.family == "vit":
        return case.config
    mixer = case.config["layer_cfgs"]["mamba_cfg"]
    return {
        "patch_size": case.config["patch_size"],
        "depth": case.config["num_layers"],
        "embed_dim": case.config["embed_dims"],
        "stem_convs": case.config["num_convs_patch_embed"],
        "dwconv_blocks": tuple(case.config["layers_with_dwconv"]),
        "num_classes": case.config["num_classes"],
        **{name: mixer[name] for name in ("d_state", "expand", "conv_size")},
    }


def _build(name, case, dtype, **options):
    options = {"img_size": case.images.shape[1:3], "dtype": dtype, **options}
    if name in REGISTERED:
        model = blank_model(REGISTERED[name], **options)
    else:
        model = blank_model(SOME[case.family], **{**_micro_options(case), **options})
    ssmjax.load_torch_state_dict(model, case.state)
    return model


def _size(model, *kinds):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, *kinds)))


def _parameters(name):
    marks = [] if name in QUICK else [pytest.mark.slow]
    micro = name.endswith("_micro")
    yield pytest.param(name, "float32", marks=[*marks, pytest.mark.optimised] if micro else marks)
    if micro:
        yield pytest.param(name, "float64")


@pytest.mark.parametrize(
    ("name", "dtype"), [p for name in golden.case_names() for p in _parameters(name)]
)
def test_model(name, dtype):
    case = _case(name)
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        _check(case, _classified(_build(name, case, jnp.dtype(dtype)), case.images), dtype)


def _classified(model, images):
    return model(images, return_intermediates=True)


def _check(case, got, dtype):
    logits, feats = got
    chex.assert_type(logits, dtype)
    # What each block of Vim normalised; what each block of the others gave to the next.
    of_blocks = slice(None, -1) if case.family == "vim" else slice(1, None)
    got = (logits, feats["features"], feats["hidden"], feats["residual"][of_blocks])
    golden.check(case, *got, dtype, TOLERANCES[dtype])


class TestVariants(chex.TestCase):
    """Each family inside a compiled function or alone, on arrays of the device or NumPy's."""

    @in_all_variants
    @parameterized.parameters(*MICRO)
    def test_model(self, name):
        case = _case(name)
        model = _build(name, case, jnp.float32)
        _check(case, self.variant(_classified)(model, case.images), "float32")


@pytest.mark.parametrize("name", MICRO)
def test_models_that_differ_in_values_compile_once(monkeypatch, name):
    case = _case(name)
    model, other = (_build(name, case, jnp.float32) for _ in range(2))
    other.head.bias[...] += 1
    kind = type(model)
    monkeypatch.setattr(kind, "embed", chex.assert_max_traces(kind.embed, n=1))
    five = case.images[[0, 1, 0, 1, 0]]  # As many as in no other test.
    logits = [_classified(one, five)[0] for one in (model, other, model)]
    chex.assert_trees_all_close(logits[1], logits[0] + 1, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_equal(logits[2], logits[0])
    with pytest.raises(AssertionError, match="traced > 1 times"):
        model(five)  # Without intermediates it is another program.


@pytest.mark.parametrize("name", golden.manifest_parameters())
def test_published_weights_fit(name):
    """Entry i of the state_dict is all i: sums tell what was read, and how much of it."""
    manifest = golden.manifest(name)
    entries = {
        entry: np.broadcast_to(np.dtype(dtype).type(i), shape)  # takes no memory
        for i, (entry, shape, dtype) in enumerate(manifest["entries"], start=1)
    }
    model = blank_model(name)
    ssmjax.load_torch_state_dict(model, entries)
    assert _size(model, nnx.Param) == manifest["num_parameters"]
    assert _size(model) == manifest["num_parameters"] + manifest["num_buffer_values"]
    for power in (1, 2):  # of small whole numbers, so exact
        want = sum(i**power * entry.size for i, entry in enumerate(entries.values(), start=1))
        leaves = jax.tree.leaves(nnx.state(model))
        assert sum(np.sum(np.asarray(x) ** power, dtype=np.float64) for x in leaves) == want


@pytest.mark.parametrize("name", MICRO)
def test_nothing_missing_and_nothing_left_over(name):
    case = _case(name)
    model = _build(name, case, jnp.float32)
    assert _size(model, nnx.Param) == case.num_params
    last = list(case.state)[-1]
    entries = {entry: value for entry, value in case.state.items() if entry != last}
    with pytest.raises(ValueError, match=f"missing {last}.*unused head.extra"):
        ssmjax.load_torch_state_dict(model, entries | {"head.extra": np.zeros(1)})


def _vim_of_other_patches(seed, patches, images, **options):
    """Weights of vim_micro but for the position embedding: (model's run, oracle's)."""
    case = _case("vim_micro")
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(1, patches + 1, 64)).astype(np.float32)
    case = case._replace(state=case.state | {"pos_embed": embedding}, images=images(case.images))
    want = vim_oracle.vim(case.state, case.images, options["stride"])
    got, feats = _build("vim_micro", case, jnp.float32, **options)(
        case.images, return_intermediates=True
    )
    assert_close(feats["residual"][0], want.embedded, 1e-5)
    assert_close(got, want.logits, 2e-5)


def test_middle_of_an_odd_number_of_patches():
    """With M = 9 patches the class token sits at M // 2 = 4, not at L // 2 = 5."""
    _vim_of_other_patches(0, 9, lambda images: images[:, :24, :24], stride=8)


def test_overlapping_patches_of_an_oblong_image():
    """Patches of 8 every 4 pixels, on 24 x 16: 5 x 3 patches in raster order."""
    _vim_of_other_patches(1, 15, lambda images: images[:, :24, :16], stride=4)

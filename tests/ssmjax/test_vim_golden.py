"""Dense Vim against the official PyTorch numbers: first the numpy oracle, then the model."""

import functools
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssmjax
from tests.oracles import golden, vim_oracle
from tests.oracles.compare import assert_close

TOLERANCES = golden.tolerances()


@functools.cache
def _case(name):
    return golden.load(name)


def _run(case, dtype):
    config = {
        key: case.config[key]
        for key in (
            "img_size",
            "patch_size",
            "stride",
            "depth",
            "embed_dim",
            "d_state",
            "num_classes",
        )
    }
    model = ssmjax.create_model("vim_tiny_patch16_224", **config, dtype=dtype)
    ssmjax.load_torch_state_dict(model, case.state)
    return jax.jit(functools.partial(model, return_intermediates=True))(case.images)


def _check(case, logits, features, hidden, residual, dtype, tolerance):
    suffix = "_f64" if dtype == "float64" else ""
    assert_close(logits, case.want[f"logits{suffix}"], tolerance["logits"], "logits")
    assert_close(features, case.want[f"feat{suffix}"], tolerance["feat"], "features")
    for name, got in (("layer", hidden), ("resid", residual)):
        sample = np.asarray(got)[:, :, case.tokens, :8]
        for i, want in enumerate(case.want[f"{name}_sample"]):
            assert_close(sample[i], want, tolerance["layers"], f"{name} {i}")
        stats = np.stack([[layer.mean(), layer.std()] for layer in np.asarray(got)])
        assert_close(stats, case.want[f"{name}_stats"], tolerance["layers"], f"{name} statistics")


@pytest.mark.parametrize("name", ["vim_micro", "vim_tiny"])
def test_oracle(name):
    case = _case(name)
    got = vim_oracle.vim(case.state, case.images, case.config["stride"])
    tolerance = {"logits": 1e-12, "feat": 1e-12, "layers": 1e-6}
    _check(case, got.logits, got.features, got.hidden, got.residual, "float64", tolerance)
    assert_close(got.embedded[:, case.tokens, :8], case.want["embed_sample"], 1e-6, "embedding")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("vim_micro", "float32"),
        ("vim_micro", "float64"),
        pytest.param("vim_tiny", "float32", marks=pytest.mark.slow),
    ],
)
def test_model(name, dtype):
    case = _case(name)
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        logits, feats = _run(case, jnp.dtype(dtype))
        assert logits.dtype == dtype
        _check(
            case,
            logits,
            feats["features"],
            feats["hidden"],
            feats["residual"],
            dtype,
            TOLERANCES[dtype],
        )


def test_middle_of_an_odd_number_of_patches():
    """With M = 9 patches the class token sits at M // 2 = 4, not at L // 2 = 5."""
    case = _case("vim_micro")
    rng = np.random.default_rng(0)
    state = dict(case.state.items())
    state["pos_embed"] = rng.normal(size=(1, 10, 64)).astype(np.float32)
    config = case.config | {"img_size": 24}
    images = case.images[:, :24, :24]
    want = vim_oracle.vim(state, images, stride=8)
    got, feats = _run(case._replace(config=config, state=state, images=images), jnp.float32)
    assert_close(got, want.logits, 2e-5)
    assert_close(feats["residual"][0], want.embedded, 1e-5)


def test_overlapping_patches_of_an_oblong_image():
    """Patches of 8 every 4 pixels, on 24 x 16: 5 x 3 patches in raster order."""
    case = _case("vim_micro")
    rng = np.random.default_rng(1)
    state = dict(case.state.items())
    state["pos_embed"] = rng.normal(size=(1, 16, 64)).astype(np.float32)
    config = case.config | {"img_size": (24, 16), "stride": 4}
    images = case.images[:, :24, :16]
    want = vim_oracle.vim(state, images, stride=4)
    got, feats = _run(case._replace(config=config, state=state, images=images), jnp.float32)
    assert_close(got, want.logits, 2e-5)
    assert_close(feats["residual"][0], want.embedded, 1e-5)

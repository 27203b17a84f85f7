"""Bfloat16 computation: what it may cost, and what stays in float32."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

import ssmjax
from ssmjax.analysis.precision import logit_error, main

SIZES = {"depth": 3, "embed_dim": 32, "d_state": 4, "patch_size": 8, "img_size": 48}
NAMES = ["vim_tiny_patch16_224", "plainmamba_l1"]
PRUNES = [None, ssmjax.PruneConfig((1,), 0.5, alignment="zero_token", conv="aligned")]
IMAGES = jax.random.normal(jax.random.key(0), (2, 48, 48, 3))


def build(name, prune, dtype):
    return ssmjax.create_model(name, num_classes=10, prune=prune, dtype=dtype, **SIZES)


def equations(jaxpr):
    """All equations of a jaxpr, those inside loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda p: isinstance(p, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(parameter, core.ClosedJaxpr):
                parameter = parameter.jaxpr
            if isinstance(parameter, core.Jaxpr):
                yield from equations(parameter)


@pytest.mark.parametrize(
    ("name", "prune"),
    [
        pytest.param(
            name,
            prune,
            marks=() if (name, prune) == (NAMES[1], PRUNES[1]) else pytest.mark.slow,
            id=f"{'pruned' if prune else 'dense'}-{name}",
        )
        for prune in PRUNES
        for name in NAMES
    ],
)
def test_logits_are_near_and_exponentials_and_norms_are_float32(name, prune):
    lower, model = (build(name, prune, dtype) for dtype in ("bfloat16", "float32"))
    chex.assert_type(lower(IMAGES), jnp.float32)
    error = logit_error(lower, model, IMAGES)
    assert 1e-4 < error.largest < 3e-2 and error.rms < error.largest
    jaxpr = jax.make_jaxpr(lower)(IMAGES).jaxpr
    dtypes = {}
    for equation in equations(jaxpr):
        dtypes.setdefault(equation.primitive.name, set()).update(
            v.aval.dtype.name for v in equation.outvars
        )
    for primitive in ("exp", "log1p", "rsqrt", "sqrt"):
        assert dtypes.get(primitive, {"float32"}) == {"float32"}, primitive
    assert "exp" in dtypes and "rsqrt" in dtypes
    assert "bfloat16" in dtypes["dot_general"]


def test_error_of_known_logits():
    want = np.array([[1.0, -4.0], [2.0, 3.0]])
    got = np.array([[1.0, -4.4], [3.2, 3.0]])
    error = logit_error(lambda _: got, lambda _: want, IMAGES)
    assert error.largest == pytest.approx(1.2 / 4)
    assert error.rms == pytest.approx(np.sqrt((0.4**2 + 1.2**2) / 4) / 4)
    assert error.agreement == 0.5


def test_the_command_prints_one_line(capsys, monkeypatch):
    arguments = ["precision", "--weights", "checkpoints/cifar10_vim_dense.safetensors"]
    monkeypatch.setattr("sys.argv", [*arguments, "--images", "4"])
    main()
    out = capsys.readouterr().out
    assert out.startswith("bfloat16 logits: largest error ") and out.count("\n") == 1

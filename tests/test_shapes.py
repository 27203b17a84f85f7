"""Shapes are checked while tests run, and only then."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax.numpy as jnp
import jaxtyping
import pytest

from kernels import selective_scan
from kernels.selective_scan import IMPLEMENTATIONS

PLAIN = """
import sys
import kernels, ssmjax
assert "beartype" not in sys.modules
assert not hasattr(kernels.selective_scan, "__wrapped__")
"""


def arguments(**others: Any) -> dict[str, Any]:
    tokens, states = jnp.ones((2, 5, 3)), jnp.ones((2, 5, 4))
    scan = {"u": tokens, "delta": tokens, "A": -jnp.ones((3, 4)), "B": states, "C": states}
    return scan | others


def test_a_wrong_shape_is_refused(monkeypatch):
    def shortened(inputs):
        return inputs.u[:, 1:], jnp.ones((2, 3, 4))

    chex.assert_shape(selective_scan(**arguments(), implementation="associative"), (2, 5, 3))
    monkeypatch.setitem(IMPLEMENTATIONS, "associative", shortened)
    with pytest.raises(jaxtyping.TypeCheckError, match="K=5"):
        selective_scan(**arguments(), implementation="associative")


def test_the_functions_own_errors_come_first():
    with pytest.raises(ValueError, match="delta has shape"):
        selective_scan(**arguments(delta=jnp.ones((2, 5, 4))))


def test_users_have_no_checks():
    done = subprocess.run([sys.executable, "-c", PLAIN], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0

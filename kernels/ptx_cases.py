"""The Triton kernels at a Vim-S layer, for a compiler report without a GPU: see README.md.

`CASES` is what the report tool takes: functions, abstract arguments, and the least work of each.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kernels import selective_scan
from kernels.selective_scan.triton_block import GROUP

B, K, E, N = 128, 197, 768, 16


def arguments(dtype: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Abstract arguments of a gated scan, tokens of `dtype` and parameters of float32."""
    shapes = {"u": (B, K, E), "delta": (B, K, E), "z": (B, K, E), "B": (B, K, N), "C": (B, K, N)}
    tokens = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes.items()}
    shapes = {"A": (E, N), "D": (E,), "delta_bias": (E,)}
    return tokens | {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}


def forward(arrays: dict[str, Any], positions: jax.Array | None) -> jax.Array:
    """[B,K,E] output of the kernel that saves nothing."""
    y = selective_scan(
        **arrays, positions=positions, delta_softplus=True, implementation="pallas_triton"
    )
    assert isinstance(y, jax.Array)
    return y


def forward_and_backward(
    arrays: dict[str, Any], positions: jax.Array | None, dy: jax.Array
) -> dict[str, Any]:
    """The gradients, by the kernel that saves states and the one that takes them back."""
    _, pull = jax.vjp(lambda arrays: forward(arrays, positions), arrays)
    return pull(dy)[0]


def cases() -> list[dict[str, Any]]:
    """Both functions, in both dtypes, with and without gaps."""
    work = {"exps": B * K * E * N, "trips": {"*": K / GROUP}}
    found = []
    for dtype in (jnp.bfloat16, jnp.float32):
        for positions in (jax.ShapeDtypeStruct((B, K), jnp.int32), None):
            arrays, gaps = arguments(dtype), "aligned" if positions else "plain"
            dy = arrays["u"]
            for function, more in ((forward, ()), (forward_and_backward, (dy,))):
                name = f"{function.__name__}, {dtype.__name__}, {gaps}"
                found.append(
                    {"name": name, "fn": function, "args": (arrays, positions, *more)} | work
                )
    return found


CASES = cases

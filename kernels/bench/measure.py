"""Roofs and errors."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from kernels.bench.contenders import Arguments

# Exponentials a second where the data sheet tells them: 16 a cycle and multiprocessor.
_EXPONENTIAL_RATE = {"NVIDIA H200": 16 * 132 * 1.98e9}
_REPEATS = 9


def exponentials_per_second() -> float:
    """Of the data sheet, or as measured on an array that fits a core's cache."""
    kind = jax.devices()[0].device_kind
    if kind in _EXPONENTIAL_RATE:
        return _EXPONENTIAL_RATE[kind]
    cores = jnp.full((jax.local_device_count() * 1 << 20,), -0.5)
    passes = 16

    def repeated(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, passes, lambda _, x: -jnp.exp(x), x)

    return passes * cores.size / _fastest(jax.jit(repeated), cores)


def bytes_per_second() -> float:
    """Of device memory, by adding one to an array far larger than any cache."""
    on_gpu = jax.devices()[0].platform == "gpu"
    array = jnp.zeros((1 << 29) if on_gpu else (1 << 26), jnp.float32)
    return 2 * array.nbytes / _fastest(jax.jit(lambda x: x + 1), array)


def error(output: Any, arguments: Arguments) -> float:
    """Largest error of the first image, relative to the largest value, against a float64 loop."""
    first = {
        name: np.asarray(a[0] if np.ndim(a) > 1 and name != "A" else a, np.float64)
        for name, a in arguments.items()
        if a is not None
    }
    want = _exact(first)
    got = np.asarray(output, np.float64) if isinstance(output, jax.Array) else output.double().cpu()
    return float(np.abs(np.asarray(got)[0] - want).max() / np.abs(want).max())


def _exact(image: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """[K,E] of the arguments of one image, in float64."""
    u, A, B, C, z = (image[name] for name in ("u", "A", "B", "C", "z"))
    step = np.logaddexp(0, image["delta"] + image["delta_bias"])
    gaps = np.diff(image.get("positions", np.arange(len(u))), prepend=-1) - 1
    gaps[0] = 0
    h, y = np.zeros(A.shape), np.empty(u.shape)
    for k in range(len(u)):
        decay = step[k] + gaps[k] * step[k - 1]
        h = np.exp(decay[:, None] * A) * h + (step[k] * u[k])[:, None] * B[k]
        y[k] = h @ C[k]
    return (y + image["D"] * u) * z / (1 + np.exp(-z))


def _fastest(run: Callable[[jax.Array], Any], argument: jax.Array) -> float:
    """Seconds of the fastest of some runs: a roof is what can be reached."""
    jax.block_until_ready(run(argument))
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(run(argument))
        seconds.append(time.perf_counter() - start)
    return min(seconds)

"""Times the implementations of the selective scan that run here, and two plain forms as peers.

    python -m kernels.bench [--suite vim]

Medians over rounds in which each contender runs once, synchronised; error against float64.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import lax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kernels.host_memory import keep_freed_memory
from kernels.selective_scan import IMPLEMENTATIONS, selective_scan

# Name: (B, K, E, N).
SUITES = {
    "demo": {"demo dense": (64, 65, 128, 4), "demo pruned": (64, 29, 128, 4)},
    "vim": {
        "vim_small, batch 1": (1, 197, 768, 16),
        "vim_small, batch 8": (8, 197, 768, 16),
        "vim_small kept, batch 8": (8, 126, 768, 16),
    },
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to time.

    Attributes:
      suite: sizes to run.
      rounds: timed runs of each contender; the median counts.
    """

    suite: Literal["demo", "vim"] = "vim"
    rounds: int = 15


def plain_scan(u, delta, A, B, C, *, rematerialise: bool):
    """The textbook loop: one token a step, state [B,E,N], differentiated by JAX."""

    def step(h, token):
        u, delta, B, C = token
        h = jnp.exp(delta[..., None] * A) * h + (delta * u)[..., None] * B[:, None, :]
        return h, jnp.einsum("ben,bn->be", h, C)

    tokens = tuple(a.swapaxes(0, 1) for a in (u, delta, B, C))
    body = jax.checkpoint(step) if rematerialise else step
    _, y = lax.scan(body, jnp.zeros((u.shape[0], *A.shape), u.dtype), tokens)
    return y.swapaxes(0, 1)


def inputs(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, ...]:
    """u, delta, A, B, C of ordinary sizes, float32."""
    b, k, e, n = shape
    rng = np.random.default_rng(0)
    normal = partial(rng.standard_normal, dtype=np.float32)
    delta = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (b, k, e))).astype(np.float32)
    A = -np.tile(np.arange(1, n + 1, dtype=np.float32), (e, 1))
    return normal((b, k, e)), delta, A, normal((b, k, n)), normal((b, k, n))


def exact(u, delta, A, B, C) -> np.ndarray:
    """The output by a float64 loop."""
    u, delta, A, B, C = (a.astype(np.float64) for a in (u, delta, A, B, C))
    h, y = np.zeros((u.shape[0], *A.shape)), np.empty(u.shape)
    for k in range(u.shape[1]):
        h *= np.exp(delta[:, k, :, None] * A)
        h += (delta[:, k] * u[:, k])[..., None] * B[:, k, None, :]
        y[:, k] = np.einsum("ben,bn->be", h, C[:, k])
    return y


def medians(contenders: dict[str, Callable], arguments: tuple, rounds: int) -> dict[str, float]:
    """Milliseconds of each contender; all run once in every round, so that noise is shared."""
    for run in contenders.values():
        jax.block_until_ready(run(*arguments))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def runs_here(form: Callable) -> bool:
    """Whether an implementation runs on this platform."""
    try:
        jax.jit(form).lower(*inputs((1, 2, 2, 2)))
    except NotImplementedError:
        return False
    return True


def main() -> None:
    """The command: a table on screen, and a JSON line per size and contender on stdout."""
    keep_freed_memory()
    options = tyro.cli(Options, description=__doc__)
    forms = {
        name: partial(selective_scan, implementation=name, delta_softplus=False)
        for name in IMPLEMENTATIONS
    }
    forms = {name: form for name, form in forms.items() if runs_here(form)}
    forms["plain lax.scan"] = partial(plain_scan, rematerialise=False)
    forms["plain, rematerialised"] = partial(plain_scan, rematerialise=True)
    device = jax.devices()[0]
    table = Table(title=f"{device.device_kind}, {jax.local_device_count()} device, float32, ms")
    for heading in ("size (B, K, E, N)", "form", "forward", "forward + backward", "error"):
        table.add_column(heading, justify="left" if heading in ("form",) else "right")
    console = Console(stderr=True)
    suite = SUITES[options.suite]
    for label, shape in track(suite.items(), options.suite, console=console):
        arguments = tuple(jnp.asarray(a) for a in inputs(shape))
        want = exact(*inputs(shape))
        forward = {name: jax.jit(form) for name, form in forms.items()}
        both = {name: jax.jit(jax.grad(_loss(form), range(5))) for name, form in forms.items()}
        times = medians(forward, arguments, options.rounds)
        times_both = medians(both, arguments, options.rounds)
        for name, run in forward.items():
            error = float(np.abs(np.asarray(run(*arguments)) - want).max() / np.abs(want).max())
            cells = f"{times[name]:.2f}", f"{times_both[name]:.2f}", f"{error:.1e}"
            table.add_row(f"{label} {shape}", name, *cells)
            record = {"size": label, "shape": shape, "form": name, "error": error}
            record |= {"forward_ms": times[name], "forward_backward_ms": times_both[name]}
            print(json.dumps(record | {"device": device.device_kind, "jax": jax.__version__}))
    console.print(table)


def _loss(form: Callable) -> Callable:
    return lambda *arguments: jnp.sum(jnp.square(form(*arguments)))


if __name__ == "__main__":
    main()

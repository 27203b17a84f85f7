"""What is timed: our implementations, textbook forms, and other packages where they are installed.

A contender makes, from several sets of arguments of one case, a function per phase: `forward`,
`saving` (the forward pass that keeps what the backward needs), `backward`, and `both`. Each runs
once, on the set of that number, and returns when the device has finished.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import IMPLEMENTATIONS, Gaps, Scan, selective_scan, steps

Arguments = Mapping[str, Any]
Phase = Callable[[int], Any]


class Prepared(NamedTuple):
    """A contender that is ready to run.

    Attributes:
      phases: by name, each a function of the number of the input set.
      memory: bytes that `both` needs beside its inputs, at its peak.
    """

    phases: dict[str, Phase]
    memory: int


Contender = Callable[[Sequence[Arguments]], Prepared]


def contenders(pruned: bool) -> dict[str, Contender]:
    """Those that can be tried here, by name; other packages know no pruned tokens."""
    chosen: dict[str, Contender] = {
        name: partial(_of_jax, partial(selective_scan, implementation=name, delta_softplus=True))
        for name in IMPLEMENTATIONS
    }
    for name, rematerialise in (("lax.scan", False), ("lax.scan, rematerialised", True)):
        chosen[name] = partial(_of_jax, partial(_textbook, rematerialise=rematerialise))
    if not pruned and importlib.util.find_spec("jla"):
        chosen["jax-linear-attention"] = partial(_of_jax, _jax_linear_attention)
    if not pruned and importlib.util.find_spec("mamba_ssm"):
        chosen["mamba_ssm"] = _mamba_ssm
    return chosen


def _of_jax(scan: Callable[..., Any], rotation: Sequence[Arguments]) -> Prepared:
    """The phases of a scan written in JAX; floating-point arguments are differentiated."""
    names = [name for name in rotation[0] if name != "positions"]
    sets = [([case[name] for name in names], case["positions"]) for case in rotation]

    def run(positions: Any, *arrays: jax.Array) -> jax.Array:
        return scan(**dict(zip(names, arrays, strict=True)), positions=positions)

    def save(positions: Any, *arrays: jax.Array) -> Any:
        return jax.vjp(partial(run, positions), *arrays)

    def differentiate(positions: Any, *arrays: jax.Array) -> Any:
        y, pull = save(positions, *arrays)
        return pull(y)

    example = (sets[0][1], *sets[0][0])
    forward, saving, both = (
        jax.jit(f).lower(*example).compile() for f in (run, save, differentiate)
    )
    needed = both.memory_analysis()
    back = jax.jit(lambda pull, y: pull(y))
    saved = [saving(positions, *arrays) for arrays, positions in sets]

    def timed(function: Callable[..., Any]) -> Phase:
        return lambda i: jax.block_until_ready(function(sets[i][1], *sets[i][0]))

    phases = {
        "forward": timed(forward),
        "saving": timed(saving),
        "backward": lambda i: jax.block_until_ready(back(saved[i][1], saved[i][0])),
        "both": timed(both),
    }
    return Prepared(phases, needed.temp_size_in_bytes + needed.output_size_in_bytes)  # pyright: ignore[reportOptionalMemberAccess]


def _textbook(positions: jax.Array | None, *, rematerialise: bool, **arrays: Any) -> jax.Array:
    """The plain loop: one token a step, state [B,E,N], differentiated by JAX."""
    inputs = Scan(**arrays, gaps=Gaps(positions), softplus=True)
    prepared = steps.prepare(inputs)

    def advance(h: jax.Array, token: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, decay, B, C = token
        h = jnp.exp(decay[..., None] * prepared.A) * h + x[..., None] * B[:, None, :]
        return h, jnp.einsum("ben,bn->be", h, C)

    x, decay = prepared.delta * prepared.u, steps.decays(prepared)
    tokens = (x, decay, prepared.B, prepared.C)
    body = jax.checkpoint(advance) if rematerialise else advance
    start = jnp.zeros((len(x), *prepared.A.shape), x.dtype)
    _, y = lax.scan(body, start, tuple(a.swapaxes(0, 1) for a in tokens))
    return steps.finish(inputs, y.swapaxes(0, 1))


def _jax_linear_attention(*, B: Any, C: Any, u: Any, positions: None, **others: Any) -> Any:
    from jla.ops import linear_attention  # pyright: ignore[reportMissingImports]

    theirs = {"delta": "dt", "A": "a", "D": "d", "z": "z", "delta_bias": "dt_bias"}
    renamed = {theirs[name]: array for name, array in others.items()}
    y, _ = linear_attention("mamba1", C, B, u, **renamed, dt_softplus=True)
    return y


def _mamba_ssm(rotation: Sequence[Arguments]) -> Prepared:
    """The CUDA kernel of the PyTorch package, which wants tokens last."""
    import torch
    from mamba_ssm.ops.selective_scan_interface import (  # pyright: ignore[reportMissingImports]
        selective_scan_fn,
    )

    def tensor(name: str, array: Any) -> Any:
        array = torch.from_dlpack(array)
        if name in ("u", "delta", "B", "C", "z"):
            array = array.transpose(1, 2).contiguous()
        return array.detach().requires_grad_()

    sets = [{k: tensor(k, a) for k, a in case.items() if a is not None} for case in rotation]

    def saving(i: int) -> Any:
        y = selective_scan_fn(**sets[i], delta_softplus=True)
        torch.cuda.synchronize()
        return y

    def forward(i: int) -> Any:
        with torch.no_grad():
            return saving(i).transpose(1, 2)

    def gradients(y: Any, i: int) -> Any:
        grads = torch.autograd.grad(y, list(sets[i].values()), y, retain_graph=True)
        torch.cuda.synchronize()
        return grads

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients(saving(0), 0)
    memory = torch.cuda.max_memory_allocated() - before
    saved = [saving(i) for i in range(len(sets))]
    phases = {
        "forward": forward,
        "saving": saving,
        "backward": lambda i: gradients(saved[i], i),
        "both": lambda i: gradients(saving(i), i),
    }
    return Prepared(phases, memory)

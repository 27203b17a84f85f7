"""The scan as one GPU kernel: Pallas with the Triton backend, for CUDA GPUs.

A program is one warp. It takes the channels of its lanes through all tokens, with their states in
registers, so only what the scan reads and writes anyway moves through memory. The design's reasons
and figures are in kernels/README.md.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from kernels.capability import only_on_cuda
from kernels.selective_scan import pallas_triton_vjp, recurrence, tuning
from kernels.selective_scan.lanes import LOG2_E, gather
from kernels.selective_scan.triton_block import (
    CHANNELS,
    STATES,
    TOKENS,
    Block,
    Plan,
    for_groups,
    groups,
    specs,
)


def scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    z: jax.Array | None,
    delta_bias: jax.Array | None,
    gap_delta: jax.Array | None,
    positions: jax.Array | None,
    *,
    delta_softplus: bool,
    alignment: str,
    reverse: bool,
    interpret: bool = False,
    tiling: tuning.Tiling | None = None,
) -> tuple[jax.Array, jax.Array]:
    """See `kernels.selective_scan` and `api.Implementation`.

    Args beyond those:
      interpret: run the kernels as plain JAX, on any platform; for tests.
      tiling: block sizes instead of those of `tuning`.

    Raises:
      NotImplementedError: for float64 inputs; when run on anything but a CUDA GPU.
    """
    if recurrence.state_dtype(u, delta, A, B, C, D, z, delta_bias, gap_delta) != jnp.float32:
        raise NotImplementedError(
            "pallas_triton keeps its state in float32; for float64 inputs choose another "
            'implementation, such as "reference".'
        )
    gaps = None
    if positions is not None and alignment != "none":
        gaps = recurrence.gaps(positions, reverse).astype(jnp.float32)
    run = partial(
        _scan_few_states,
        u=u,
        delta=delta,
        delta_bias=delta_bias,
        gap_delta=None if gaps is None else gap_delta,
        gaps=gaps,
        softplus=delta_softplus,
        reverse=reverse,
        interpret=interpret,
        tiling=tiling,
    )
    states = A.shape[1]
    if states <= tuning.MAX_STATES:
        return run(A=A, B=B, C=C, D=D, z=z)
    # States are independent of each other but for the sum in y: scan them in pieces.
    A, B, C = (_pieces(a) for a in (A, B, C))
    wide = u.astype(jnp.float32)
    y, last = jax.vmap(lambda A, B, C: run(A=A, B=B, C=C, D=None, z=None, u=wide))(A, B, C)
    last = jnp.moveaxis(last, 0, 2)
    return (
        recurrence.finish(y.sum(axis=0), u, D, z),
        last.reshape(*last.shape[:2], -1)[..., :states],
    )


def _scan_few_states(*, softplus, reverse, interpret, tiling, **arrays):
    """`scan` for at most `MAX_STATES` states: pads them and the channels to what kernels take."""
    (batch, _, channels), states = arrays["u"].shape, arrays["A"].shape[1]
    infer, train = (
        Plan(softplus, reverse, tiling or chosen, interpret)
        for chosen in (tuning.inference(batch, channels), tuning.training())
    )
    more_states = pl.next_power_of_2(states) - states
    more_channels = -channels % max(infer.tiling.block, train.tiling.block)
    operands = {"A": _pad(LOG2_E * arrays["A"].astype(jnp.float32), more_states).T}
    operands |= {name: _pad(arrays[name], more_states) for name in STATES}
    operands |= {name: arrays[name] for name in TOKENS if arrays[name] is not None}
    for name in CHANNELS:
        if arrays[name] is not None:
            operands[name] = arrays[name].astype(jnp.float32)
    operands = {
        name: array if name in STATES else _pad(array, more_channels)
        for name, array in operands.items()
    }
    if arrays["gaps"] is not None:
        operands["gaps"] = arrays["gaps"]
    y, last = _scan(infer, train, operands)
    return y[..., :channels], last[:, :states, :channels].swapaxes(1, 2)


def _pad(array, more):
    """Zeros after the last axis; the array itself where none are needed."""
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, more)]) if more else array


def _pieces(array):
    """[...,N] to [pieces,...,MAX_STATES]."""
    array = _pad(array, -array.shape[-1] % tuning.MAX_STATES)
    return jnp.moveaxis(array.reshape(*array.shape[:-1], -1, tuning.MAX_STATES), -2, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(infer: Plan, train: Plan, operands: dict) -> tuple[jax.Array, jax.Array]:
    """(y [B,K,E], last state [B,N,E]) of operands as `triton_block` lists them."""
    outputs = _launch(infer, False, operands)
    return outputs["y"], outputs["last"]


def _scan_forward(infer, train, operands):
    outputs = _launch(train, True, operands)
    return (outputs["y"], outputs["last"]), (operands, outputs["saved"])


def _scan_backward(infer, train, residuals, cotangents):
    return (pallas_triton_vjp.gradients(train, *residuals, *cotangents),)


_scan.defvjp(_scan_forward, _scan_backward)


@partial(jax.jit, static_argnums=(0, 1))
def _launch(plan: Plan, save: bool, operands: dict) -> dict:
    """y, the last state and, where asked for, the state before each group of tokens."""
    u, (states, channels) = operands["u"], operands["A"].shape
    batch, length, _ = u.shape
    block = plan.tiling.block
    shapes = {
        "y": jax.ShapeDtypeStruct(u.shape, u.dtype),
        "last": jax.ShapeDtypeStruct((batch, states, channels), jnp.float32),
    }
    cuts = {
        "y": specs(operands, block)["u"],
        "last": pl.BlockSpec((None, states, block), lambda c, b: (b, 0, c)),
    }
    if save:
        saved = groups(length, plan.tiling.tokens)
        shapes["saved"] = jax.ShapeDtypeStruct((batch, saved, states, channels), jnp.float32)
        cuts["saved"] = pl.BlockSpec((None, saved, states, block), lambda c, b: (b, 0, 0, c))
    if not plan.interpret:
        operands = operands | {"u": only_on_cuda(u)}
    return pl.pallas_call(
        partial(selective_scan_forward, plan=plan),
        grid=(channels // block, batch),
        in_specs=[specs(operands, block)],
        out_specs=cuts,
        out_shape=shapes,
        compiler_params=pltriton.CompilerParams(num_warps=1, num_stages=1),
        interpret=plan.interpret,
    )(operands)


def selective_scan_forward(refs: dict, out: dict, *, plan: Plan) -> None:
    """The kernel: the operands' refs in, those of `_launch`'s results out."""
    block = Block(refs, plan)

    def run(group, first, tokens, carry):
        h, before = carry
        if "saved" in out:
            for n in range(block.states):
                out["saved"][group, n] = gather(h[n])
        for k in range(tokens):
            token = block.place(first + k)
            u, (step, _) = block.row("u", token), block.step(token)
            total = block.total(block.gap(token), step, before)
            x = [s * v for s, v in zip(step, u, strict=True)]
            h = block.advance(h, total, x, block.uniform("B", token))
            y = block.read(h, block.uniform("C", token), u)
            if "z" in refs:
                gates = (z * block.lanes.sigmoid(z) for z in block.row("z", token))
                y = [v * gate for v, gate in zip(y, gates, strict=True)]
            out["y"][token] = gather(y).astype(out["y"].dtype)
            before = step if block.looks_back else []
        return h, before

    start = [block.zeros() for _ in range(block.states)]
    carry = start, block.zeros() if block.looks_back else []
    h, _ = for_groups(block.length, plan.tiling.tokens, run, carry)
    for n in range(block.states):
        out["last"][n] = gather(h[n])

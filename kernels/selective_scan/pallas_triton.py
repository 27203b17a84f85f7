"""The scan as one GPU kernel: Pallas with the Triton backend, for CUDA GPUs.

A program is one warp. It takes the channels of its lanes through all tokens, with their states in
registers, so only what the scan reads and writes anyway moves through memory. The design's reasons
and figures are in kernels/README.md.
"""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from kernels.capability import only_on_cuda
from kernels.per_image import per_image
from kernels.selective_scan import pallas_triton_vjp, steps
from kernels.selective_scan.inputs import Scan
from kernels.selective_scan.lanes import LANES, LOG2_E
from kernels.selective_scan.triton_block import (
    GAPS,
    GROUP,
    MATRIX,
    MAX_STATES,
    ORDER,
    SHARED,
    STATES,
    TOKENS,
    Block,
    Operands,
    Plan,
    Refs,
    cut,
    cuts,
    for_groups,
    groups,
)

# JAX 0.11 and 0.12 still have the backend, and say so at each lowering.
warnings.filterwarnings(
    "ignore", "The Pallas Triton backend is deprecated", category=DeprecationWarning
)


def scan(
    inputs: Scan, *, interpret: bool = False, tokens: int = GROUP
) -> tuple[jax.Array, jax.Array]:
    """See `kernels.selective_scan` and `api.Implementation`.

    Args beyond those:
      interpret: run the kernels as plain JAX, on any platform; for tests.
      tokens: see `Plan`.

    Raises:
      NotImplementedError: for float64 inputs; when run on anything but a CUDA GPU.
    """
    if inputs.dtype != jnp.float32:
        raise NotImplementedError(
            "pallas_triton keeps its state in float32; for float64 inputs choose another "
            'implementation, such as "reference".'
        )
    plan = Plan(inputs.softplus, inputs.reverse, tokens, interpret)
    states = inputs.A.shape[1]
    if states <= MAX_STATES:
        return _scan_few_states(plan, inputs)

    # States are independent of each other but for the sum in y: scan them in pieces.
    def scan_piece(A: jax.Array, B: jax.Array, C: jax.Array) -> tuple[jax.Array, jax.Array]:
        u = inputs.u.astype(jnp.float32)
        return _scan_few_states(plan, replace(inputs, u=u, A=A, B=B, C=C, D=None, z=None))

    y, last = jax.vmap(scan_piece)(*(_pieces(a) for a in (inputs.A, inputs.B, inputs.C)))
    last = jnp.moveaxis(last, 0, 2)
    return (
        steps.finish(inputs, y.sum(axis=0)),
        last.reshape(*last.shape[:2], -1)[..., :states],
    )


def _scan_few_states(plan: Plan, inputs: Scan) -> tuple[jax.Array, jax.Array]:
    """`scan` for at most `MAX_STATES` states: pads them and the channels to what kernels take."""
    channels, states = inputs.A.shape
    more_channels, more_states = -channels % LANES, max(2, pl.next_power_of_2(states)) - states
    gaps = steps.pruned_before(inputs)
    arrays = {name: getattr(inputs, name) for name in (*TOKENS, *STATES, "D", "delta_bias", ORDER)}
    arrays |= {GAPS: gaps, "gap_delta": None if gaps is None else inputs.gaps.delta}
    arrays[MATRIX] = _pad(LOG2_E * inputs.A.astype(jnp.float32), more_states).T

    def operand(name: str, array: jax.Array) -> jax.Array:
        if name in (GAPS, ORDER):
            return array
        array = array if name in TOKENS else array.astype(jnp.float32)
        return _pad(array, more_states if name in STATES else more_channels)

    operands = {name: operand(name, a) for name, a in arrays.items() if a is not None}
    y, last = _scan(plan, operands)  # pyright: ignore[reportGeneralTypeIssues]
    return y[..., :channels], last[:, :states, :channels].swapaxes(1, 2)


def _pad(array: jax.Array, more: int) -> jax.Array:
    """Zeros after the last axis; the array itself where none are needed."""
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, more)]) if more else array


def _pieces(array: jax.Array) -> jax.Array:
    """[...,N] to [pieces,...,MAX_STATES]."""
    array = _pad(array, -array.shape[-1] % MAX_STATES)
    return jnp.moveaxis(array.reshape(*array.shape[:-1], -1, MAX_STATES), -2, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, operands: Operands) -> tuple[jax.Array, jax.Array]:
    """(y [B,K,E], last state [B,N,E]) of operands as `triton_block` lists them."""
    outputs = per_image(partial(_launch, plan, False), operands, SHARED)
    return outputs["y"], outputs["last"]


def _scan_forward(plan: Plan, operands: Operands) -> tuple[Any, Any]:
    outputs = per_image(partial(_launch, plan, True), operands, SHARED)
    return (outputs["y"], outputs["last"]), (operands, outputs["saved"])


def _scan_backward(plan: Plan, residuals: Any, cotangents: Any) -> tuple[Any]:
    return (pallas_triton_vjp.gradients(plan, *residuals, *cotangents),)


_scan.defvjp(_scan_forward, _scan_backward)


@partial(jax.jit, static_argnums=(0, 1))  # Traced once for all layers of a model.
def _launch(plan: Plan, save: bool, operands: Operands) -> Operands:
    """y, the last state and, where asked for, the state before each group of tokens."""
    u, (states, channels) = operands["u"], operands[MATRIX].shape
    batch, length, _ = u.shape
    shapes = {
        "y": jax.ShapeDtypeStruct(u.shape, u.dtype),
        "last": jax.ShapeDtypeStruct((batch, states, channels), jnp.float32),
    }
    if save:
        saved = (batch, groups(length, plan.tokens), states, channels)
        shapes["saved"] = jax.ShapeDtypeStruct(saved, jnp.float32)
    if not plan.interpret:
        operands = operands | {"u": only_on_cuda(u)}
    return pl.pallas_call(
        partial(selective_scan_forward, plan=plan),
        grid=(channels // LANES, batch),
        in_specs=[cuts(operands)],
        out_specs={name: cut(shape.shape) for name, shape in shapes.items()},
        out_shape=shapes,
        compiler_params=pltriton.CompilerParams(num_warps=1, num_stages=1),
        interpret=plan.interpret,
    )(operands)


def selective_scan_forward(refs: Refs, out: Refs, *, plan: Plan) -> None:
    """The kernel: the operands' refs in, those of `_launch`'s results out."""
    block = Block(refs, plan)

    def run(group: Any, first: Any, tokens: int, carry: Any) -> Any:
        h, before = carry
        if "saved" in out:
            for n, state in enumerate(h):
                out["saved"][group, n] = state
        for k in range(tokens):
            token = block.place(first + k)
            row = block.row(token)
            u, (step, _) = block.load("u", row), block.step(token)
            total = block.total(block.gap(token), step, before)
            h = block.advance(h, total, step * u, block.load_states("B", token))
            y = block.read(h, block.load_states("C", token), u)
            if "z" in refs:
                z = block.load("z", row)
                y = y * z * block.lanes.sigmoid(z)
            out["y"][row] = y.astype(out["y"].dtype)
            before = step if block.looks_back else None
        return h, before

    before = jnp.zeros(LANES, jnp.float32) if block.looks_back else None
    h, _ = for_groups(block.length, plan.tokens, run, (block.zeros(), before))
    for n, state in enumerate(h):
        out["last"][n] = state

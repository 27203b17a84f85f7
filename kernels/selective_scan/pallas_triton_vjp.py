"""Gradients of the Triton kernel, by a kernel that recomputes from the saved states.

For each group of tokens, last group first, it runs the states again from the saved one, keeps them
in registers, and takes the adjoint of the state back through the group. Sums over channels (B, C)
leave the kernel as one partial per block and sums over the batch (A, D, ...) as one per image; XLA
adds them, always in the same order.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from kernels.capability import only_on_cuda
from kernels.per_image import per_image
from kernels.selective_scan import triton_block
from kernels.selective_scan.lanes import LANES, LN_2
from kernels.selective_scan.triton_block import MATRIX, SHARED, Block, Operands, Plan, Refs, cut


def gradients(
    plan: Plan, operands: Operands, saved: jax.Array, dy: jax.Array, dlast: jax.Array
) -> dict[str, jax.Array | None]:
    """The gradient of each operand, of its dtype; None for the gaps and the order.

    Args:
      plan: the one with which the states were saved.
      operands: as `triton_block` lists them.
      saved: [B,groups,N,E] float32, the state before each group of tokens.
      dy: [B,K,E] of u's dtype, the gradient with respect to y.
      dlast: [B,N,E] float32, with respect to the last state.
    """
    states = saved.shape[2]
    arrays = operands | {"saved": saved, "dy": dy, "dlast": dlast}
    grads = per_image(partial(_launch, plan), arrays, SHARED)
    BC = grads.pop("BC").sum(axis=1)
    grads |= zip(triton_block.STATES, jnp.split(BC[..., : 2 * states], 2, axis=-1), strict=True)
    grads |= {name: grads[name].sum(axis=0) for name in SHARED if name in grads}
    # The kernel differentiates by the exponent to base e, and A is in powers of two.
    grads[MATRIX] *= LN_2
    return grads | dict.fromkeys(operands.keys() - grads.keys())


@partial(jax.jit, static_argnums=0)  # Traced once for all layers of a model.
def _launch(plan: Plan, arrays: Operands) -> Operands:
    """Gradients by image: those of B and C together, by block of channels, as "BC"."""
    saved, dy, dlast = (arrays[name] for name in ("saved", "dy", "dlast"))
    operands = {name: arrays[name] for name in arrays.keys() - {"saved", "dy", "dlast"}}
    batch, length, channels = dy.shape
    blocks = channels // LANES
    shapes = {name: operands[name] for name in triton_block.TOKENS if name in operands}
    shapes |= {
        name: jax.ShapeDtypeStruct((batch, *operands[name].shape), jnp.float32)
        for name in SHARED
        if name in operands
    }
    out_cuts = {name: cut(array.shape) for name, array in shapes.items()}
    shapes["BC"] = jax.ShapeDtypeStruct((batch, blocks, length, LANES), jnp.float32)
    out_cuts["BC"] = pl.BlockSpec((None, None, length, LANES), lambda c, b: (b, c, 0, 0))
    return pl.pallas_call(
        partial(selective_scan_backward, plan=plan),
        grid=(blocks, batch),
        in_specs=[triton_block.cuts(operands), *(cut(array.shape) for array in (saved, dy, dlast))],
        out_specs=out_cuts,
        out_shape=jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), shapes),
        compiler_params=pltriton.CompilerParams(num_warps=1, num_stages=1),
        interpret=plan.interpret,
    )(operands, saved, dy if plan.interpret else only_on_cuda(dy), dlast)


def selective_scan_backward(
    refs: Refs, saved: Any, dy: Any, dlast: Any, out: Refs, *, plan: Plan
) -> None:
    """The kernel: refs of the arguments of `gradients` in, those of its partial sums out."""
    block = Block(refs, plan)
    fma, dot, sigmoid, exp2 = (getattr(block.lanes, f) for f in ("fma", "dot", "sigmoid", "exp2"))
    one = jnp.ones(LANES, jnp.float32)

    def run(group: Any, first: Any, tokens: int, carry: Any) -> Any:
        places = [block.place(first + k) for k in range(tokens)]
        # Before the first token there is none, and its gap is 0: any step will do.
        before = block.step(block.place(jnp.maximum(first - 1, 0)))[0] if block.looks_back else None
        h, tape = [saved[group, n] for n in range(block.states)], []
        for token in places:
            u, (step, slope) = block.load("u", block.row(token)), block.step(token)
            gap = block.gap(token)
            total = block.total(gap, step, before)
            tape.append((h, u, step, slope, gap, total))
            h = block.advance(h, total, step * u, block.load_states("B", token))
            before = step
        for token, record in zip(places[::-1], tape[::-1], strict=True):
            carry = adjoint(token, h, record, carry)
            h = record[0]
        return carry

    def adjoint(token: Any, after: list[jax.Array], record: Any, carry: Any) -> Any:
        """Gradients at a token, with the states around it and those by the tokens after it."""
        before, u, step, slope, gap, total = record
        row = block.row(token)
        dh, dA, sums, dstep = carry
        B, C = block.load_states("B", token), block.load_states("C", token)
        dread = dy[row].astype(jnp.float32)
        if "z" in refs:
            z = block.load("z", row)
            gate, read = sigmoid(z), block.read(after, C, u)
            dz = dread * read * gate * fma(z, 1 - gate, one)
            out["z"][row] = dz.astype(out["z"].dtype)
            dread = dread * z * gate
        dh = [fma(c, dread, v) for c, v in zip(C, dh, strict=True)]
        x = step * u
        dB, dC = [(v, x) for v in dh], [(v, dread) for v in after]
        out["BC"][token] = block.lanes.sums(dB + dC)
        dx = dot(dh, B)
        dh = [v * exp2(total * a) for v, a in zip(dh, block.A, strict=True)]
        dexponent = [v * w for v, w in zip(dh, before, strict=True)]
        dA = [fma(v, total, w) for v, w in zip(dexponent, dA, strict=True)]
        dtotal = LN_2 * dot(dexponent, block.A)
        du = dx * step if block.D is None else fma(block.D, dread, dx * step)
        out["u"][row] = du.astype(out["u"].dtype)
        ddelta = fma(dx, u, dtotal)
        if block.looks_back:
            ddelta, dstep = ddelta + dstep, gap * dtotal
        if slope is not None:
            ddelta = ddelta * slope
        out["delta"][token] = ddelta.astype(out["delta"].dtype)
        terms = {"D": (dread, u), "delta_bias": (ddelta, one), "gap_delta": (dtotal, gap)}
        sums = {name: fma(*terms[name], total) for name, total in sums.items()}
        return dh, dA, sums, dstep

    zero = jnp.zeros(LANES, jnp.float32)
    sums = {name: zero for name in triton_block.CHANNELS if name in refs}
    dh = [dlast[n] for n in range(block.states)]
    carry = dh, block.zeros(), sums, zero if block.looks_back else None
    _, dA, sums, _ = triton_block.for_groups(block.length, plan.tokens, run, carry, backwards=True)
    for n, state in enumerate(dA):
        out[MATRIX][n] = state
    for name, total in sums.items():
        out[name][...] = total

"""Gradients of the Triton kernel, by a kernel that recomputes from the saved states.

For each group of tokens, last group first, it runs the states again from the saved one, keeps them
in registers, and takes the adjoint of the state back through the group. Sums over channels (B, C)
leave the kernel as one partial per block and sums over the batch (A, D, ...) as one per image; XLA
adds them, always in the same order.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from kernels.capability import only_on_cuda
from kernels.selective_scan.lanes import LANES, LN_2, deal, gather
from kernels.selective_scan.triton_block import (
    CHANNELS,
    MATRIX,
    STATES,
    TOKENS,
    Block,
    Plan,
    for_groups,
    specs,
)


@partial(jax.jit, static_argnums=0)
def gradients(
    plan: Plan, operands: dict, saved: jax.Array, dy: jax.Array, dlast: jax.Array
) -> dict:
    """The gradient of each operand, of its dtype; None for the gaps.

    Args:
      plan: the one with which the states were saved.
      operands: as `triton_block` lists them.
      saved: [B,groups,N,E] float32, the state before each group.
      dy: [B,K,E] of u's dtype, the gradient with respect to y.
      dlast: [B,N,E] float32, with respect to the last state.
    """
    batch, length, channels = dy.shape
    states, block = saved.shape[2], plan.tiling.block
    blocks = channels // block
    cuts = specs(operands, block)
    if not plan.interpret:
        dy = only_on_cuda(dy)
    per_image = pl.BlockSpec((None, states, block), lambda c, b: (b, 0, c))
    shapes, out_cuts = {}, {}
    for name, array in operands.items():
        if name in TOKENS:
            shapes[name] = jax.ShapeDtypeStruct(array.shape, array.dtype)
            out_cuts[name] = cuts[name]
        elif name in CHANNELS:
            shapes[name] = jax.ShapeDtypeStruct((batch, channels), jnp.float32)
            out_cuts[name] = pl.BlockSpec((None, block), lambda c, b: (b, c))
    shapes["A"] = jax.ShapeDtypeStruct((batch, states, channels), jnp.float32)
    out_cuts["A"] = per_image
    shapes["BC"] = jax.ShapeDtypeStruct((batch, blocks, length, LANES), jnp.float32)
    out_cuts["BC"] = pl.BlockSpec((None, None, length, LANES), lambda c, b: (b, c, 0, 0))
    grads = pl.pallas_call(
        partial(selective_scan_backward, plan=plan),
        grid=(blocks, batch),
        in_specs=[
            cuts,
            pl.BlockSpec((None, *saved.shape[1:3], block), lambda c, b: (b, 0, 0, c)),
            cuts["u"],
            per_image,
        ],
        out_specs=out_cuts,
        out_shape=shapes,
        compiler_params=pltriton.CompilerParams(num_warps=1, num_stages=1),
        interpret=plan.interpret,
    )(operands, saved, dy, dlast)
    BC = grads.pop("BC").sum(axis=1)
    for i, name in enumerate(STATES):
        grads[name] = BC[..., i * states : (i + 1) * states].astype(operands[name].dtype)
    for name in (*MATRIX, *CHANNELS):
        if name in grads:
            grads[name] = grads[name].sum(axis=0)
    grads["A"] *= LN_2  # The kernel's sum is of the gradient of total A, without the 2** of it.
    return grads | dict.fromkeys(operands.keys() - grads.keys())


def selective_scan_backward(refs, saved, dy, dlast, out, *, plan: Plan) -> None:
    """The kernel: refs of the operands of `gradients` in, those of its partial sums out."""
    block = Block(refs, plan)
    fma, hand, states = block.lanes.fma, block.hand, range(block.states)

    def run(group, first, tokens, carry):
        h = [deal(saved[group, n]) for n in states]
        places = [block.place(first + k) for k in range(tokens)]
        # Before the first token there is none, and its gap is 0: any step will do.
        before = block.step(block.place(jnp.maximum(first - 1, 0)))[0] if block.looks_back else []
        tape = []
        for token in places:
            u, (step, slope) = block.row("u", token), block.step(token)
            gap = block.gap(token)
            total = block.total(gap, step, before)
            x = [s * v for s, v in zip(step, u, strict=True)]
            tape.append((h, u, step, slope, gap, total, x))
            h = block.advance(h, total, x, block.uniform("B", token))
            before = step
        for token, record in zip(places[::-1], tape[::-1], strict=True):
            carry = adjoint(token, h, record, carry)
            h = record[0]
        return carry

    def adjoint(token, after, record, carry):
        """The gradients at one token, from dh: that of the state after it, by later tokens."""
        before, u, step, slope, gap, total, x = record
        dh, dA, sums, dstep = carry
        B, C = block.uniform("B", token), block.uniform("C", token)
        dout = deal(dy[token].astype(jnp.float32))
        if "z" in refs:
            z, y = block.row("z", token), block.read(after, C, u)
            gate = [block.lanes.sigmoid(v) for v in z]
            dz = [dout[i] * y[i] * gate[i] * fma(z[i], 1 - gate[i], one) for i in hand]
            out["z"][token] = gather(dz).astype(out["z"].dtype)
            dout = [dout[i] * z[i] * gate[i] for i in hand]
        dh = [[fma(C[n], dout[i], dh[n][i]) for i in hand] for n in states]
        dC = [_dot(fma, after[n], dout) for n in states]
        dB = [_dot(fma, dh[n], x) for n in states]
        out["BC"][token] = block.lanes.sums(dB + dC)
        dx = [_dot(fma, [dh[n][i] for n in states], B) for i in hand]
        decay = [[block.lanes.exp2(total[i] * block.A[n][i]) for i in hand] for n in states]
        dh = [[dh[n][i] * decay[n][i] for i in hand] for n in states]
        dexponent = [[dh[n][i] * before[n][i] for i in hand] for n in states]
        dA = [[fma(dexponent[n][i], total[i], dA[n][i]) for i in hand] for n in states]
        dtotal = [
            LN_2 * _dot(fma, [dexponent[n][i] for n in states], [block.A[n][i] for n in states])
            for i in hand
        ]
        du = [dx[i] * step[i] for i in hand]
        if block.D is not None:
            du = [fma(block.D[i], dout[i], du[i]) for i in hand]
        out["u"][token] = gather(du).astype(out["u"].dtype)
        ddelta = [fma(dx[i], u[i], dtotal[i]) for i in hand]
        if block.looks_back:
            ddelta = [ddelta[i] + dstep[i] for i in hand]
            dstep = [gap * dtotal[i] for i in hand]
        if slope is not None:
            ddelta = [ddelta[i] * slope[i] for i in hand]
        out["delta"][token] = gather(ddelta).astype(out["delta"].dtype)
        added = {"D": (dout, u), "gap_delta": (dtotal, [gap] * len(hand))}
        added["delta_bias"] = (ddelta, [one] * len(hand))
        sums = {
            name: [fma(a, b, s) for a, b, s in zip(*added[name], total, strict=True)]
            for name, total in sums.items()
        }
        return dh, dA, sums, dstep

    one = jnp.ones(LANES, jnp.float32)
    carry = (
        block.matrix(dlast),
        [block.zeros() for _ in states],
        {name: block.zeros() for name in CHANNELS if name in refs},
        block.zeros() if block.looks_back else [],
    )
    _, dA, sums, _ = for_groups(block.length, plan.tiling.tokens, run, carry, backwards=True)
    for n in states:
        out["A"][n] = gather(dA[n])
    for name, total in sums.items():
        out[name][...] = gather(total)


def _dot(fma, a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
    """a . b as a chain of multiply-adds."""
    total = a[0] * b[0]
    for v, w in zip(a[1:], b[1:], strict=True):
        total = fma(v, w, total)
    return total

"""The scan as one GPU kernel: Pallas with the Mosaic GPU backend, for Hopper and newer.

A program is one warpgroup. It takes 128 channels, one in each lane, through all tokens of an image,
with their states in registers. Groups of tokens stream through shared memory: the copy engine
brings the next ones while the lanes compute, so that no lane waits for memory or spends registers
on what it will need. Gradients are those of the Triton kernels, which run the scan again.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels.capability import only_on_cuda
from kernels.per_image import per_image
from kernels.selective_scan import pallas_triton, steps
from kernels.selective_scan.inputs import Scan
from kernels.selective_scan.lanes import LOG1P, LOG2_E

HOPPER = (9, 0)  # The first compute capability with the copy engine.
LANES = 128  # Of a warpgroup.
MAX_STATES = 64  # A lane has registers for these states and their A.
TOKENS = 8  # Of a group. Pallas copies multiples of 128 bytes, and so may a row be one of 16.
SLOTS = 2  # Groups in shared memory: one in use, one on its way.

STREAMED = ("u", "delta", "z")  # [B,K,E], as given
CHANNELS = ("D", "delta_bias", "gap_delta")  # [E] float32

_Results = tuple[jax.Array, jax.Array]  # y and the last state.


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static side of a scan; which optional operands there are shows in the operands.

    Attributes:
      softplus: whether the step is a softplus.
      gaps: whether `rows` has them.
      reverse: whether the last token comes first.
      interpret: how Pallas interprets the kernel (its `InterpretGPUParams`); None compiles it.
    """

    softplus: bool
    gaps: bool
    reverse: bool
    interpret: Any


def scan(inputs: Scan, *, interpret: Any = None) -> _Results:
    """See `kernels.selective_scan` and `api.Implementation`.

    Args beyond those:
      interpret: see `Plan`; for tests, on any platform.

    Raises:
      NotImplementedError: for float64 inputs or more than 64 states; when run on anything but a
        CUDA GPU of compute capability 9.0 or more.
    """
    if inputs.dtype != jnp.float32:
        raise NotImplementedError(
            "pallas_mosaic keeps its state in float32; for float64 inputs choose another "
            'implementation, such as "reference".'
        )
    states = inputs.A.shape[1]
    if states > MAX_STATES:
        raise NotImplementedError(
            f"pallas_mosaic keeps at most {MAX_STATES} states and A has {states}; choose "
            'another implementation, such as "reference".'
        )
    return _scan(interpret, inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(interpret: Any, inputs: Scan) -> _Results:
    (batch, length, channels), states = inputs.u.shape, inputs.A.shape[1]
    gaps = steps.pruned_before(inputs)
    rows = [inputs.B, inputs.C] if gaps is None else [inputs.B, inputs.C, gaps[..., None]]
    rows = jnp.concatenate([row.astype(jnp.float32) for row in rows], axis=-1)
    operands = {"rows": _pad(rows, 16 // rows.itemsize)}
    for name in STREAMED:
        if (array := getattr(inputs, name)) is not None:
            operands[name] = _pad(array, LANES)
    channel_arrays = {
        "A": LOG2_E * inputs.A.astype(jnp.float32).T,
        "D": inputs.D,
        "delta_bias": inputs.delta_bias,
        "gap_delta": inputs.gaps.delta,
    }
    for name, array in channel_arrays.items():
        if array is not None:
            array = _pad(array.astype(jnp.float32), LANES)
            operands[name] = array.reshape(*array.shape[:-1], -1, LANES)
    launch = partial(_launch, Plan(inputs.softplus, gaps is not None, inputs.reverse, interpret))
    if interpret is None:  # The interpreter has effects, which cannot be partitioned.
        y, last = per_image(launch, operands, (*CHANNELS, "A"))
    else:
        y, last = launch(operands)
    return (
        y.reshape(batch, length, -1)[..., :channels],
        last.reshape(batch, states, -1)[..., :channels].swapaxes(1, 2),
    )


def _scan_forward(interpret: Any, inputs: Scan) -> tuple[_Results, Scan]:
    return _scan(interpret, inputs), inputs


def _scan_backward(interpret: Any, inputs: Scan, cotangents: _Results) -> Any:
    triton = partial(pallas_triton.scan, interpret=interpret is not None)
    _, pullback = jax.vjp(triton, inputs)
    return pullback(cotangents)


_scan.defvjp(_scan_forward, _scan_backward)


def _pad(array: jax.Array, multiple: int) -> jax.Array:
    """Zeros after the last axis up to a multiple; the array itself where none are needed."""
    more = -array.shape[-1] % multiple
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, more)]) if more else array


@partial(jax.jit, static_argnums=0)
def _launch(plan: Plan, operands: dict[str, jax.Array]) -> _Results:
    """(y [B,K,blocks,128] of u's dtype, last state [B,N,blocks,128] float32).

    Args:
      plan: the static side.
      operands: STREAMED, with E a multiple of 128; `rows` [B,K,multiple of 4] float32: B, C and,
        where there are gaps, the gap of a token; `A` [N,blocks,128] float32, in powers of two: the
        state decays by 2**(total A); CHANNELS [blocks,128].
    """
    u, (states, blocks, _) = operands["u"], operands["A"].shape
    batch, length, _ = u.shape
    if plan.interpret is None:
        operands = operands | {"u": only_on_cuda(u, kernel="Mosaic", oldest=HOPPER)}
    return plgpu.kernel(
        partial(selective_scan_forward, plan=plan),
        out_type=(
            jax.ShapeDtypeStruct((batch, length, blocks, LANES), u.dtype),
            jax.ShapeDtypeStruct((batch, states, blocks, LANES), jnp.float32),
        ),
        grid=(batch, blocks),
        grid_names=("image", "block"),
        compiler_params=plgpu.CompilerParams(
            approx_math=True,
            # They would stand around every store; the one that is needed is spelt out.
            unsafe_no_auto_barriers=True,
            # Infers how arrays lie in lanes; the default from jax 0.11 on.
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
        ),
        interpret=plan.interpret,
        kernel_name="selective_scan_forward",
    )(operands)


def selective_scan_forward(refs: dict[str, Any], y_ref: Any, last_ref: Any, *, plan: Plan) -> None:
    """The kernel: refs of the operands of `_launch` in, those of its results out."""
    image, block = lax.axis_index("image"), lax.axis_index("block")
    length, states = y_ref.shape[1], last_ref.shape[1]
    A = [refs["A"][n, block] for n in range(states)]
    D, bias, gap_delta = (refs[name][block] if name in refs else None for name in CHANNELS)
    streams = ["rows", *(name for name in STREAMED if name in refs)]
    groups, zeros = pl.cdiv(length, TOKENS), jnp.zeros(LANES, jnp.float32)

    def place(i: Any, count: Any) -> Any:
        """Where the i-th of `count` tokens or groups in scan order lies."""
        return count - 1 - i if plan.reverse else i

    def run_group(indices: Any, *arguments: Any) -> Any:
        *tiles, carry = arguments
        tile, group = dict(zip(streams, tiles, strict=True)), place(indices[0], groups)
        # The last group in memory may be shorter: what fills it up in the copy is not read.
        count = jnp.minimum(length - group * TOKENS, TOKENS) if length % TOKENS else TOKENS

        def run_token(i: jax.Array, carry: Any) -> Any:
            (h, before), token = carry, place(i, count)
            u = tile["u"][token].astype(jnp.float32)
            step = tile["delta"][token].astype(jnp.float32)
            if bias is not None:
                step = step + bias
            if plan.softplus:
                step = softplus(step)
            total = step
            if plan.gaps:
                gamma = before if gap_delta is None else gap_delta
                total = step + tile["rows"][token, 2 * states] * gamma
            x, y = step * u, zeros if D is None else D * u
            B, C = ([tile["rows"][token, k * states + n] for n in range(states)] for k in (0, 1))
            h = [jnp.exp2(total * A[n]) * h[n] + x * B[n] for n in range(states)]
            for n in range(states):
                y = y + h[n] * C[n]
            if "z" in tile:
                z = tile["z"][token].astype(jnp.float32)
                y = y * z * sigmoid(z)
            y_ref[image, group * TOKENS + token, block] = y.astype(y_ref.dtype)
            return h, step

        carry = lax.fori_loop(0, count, run_token, carry)
        plgpu.commit_smem()  # All lanes have read the group before the next is copied over it.
        return carry

    def cut(name: str) -> pl.BlockSpec:
        if name == "rows":
            shape, column = (None, TOKENS, refs[name].shape[-1]), 0
        else:
            shape, column = (None, TOKENS, LANES), block
        return pl.BlockSpec(shape, lambda i: (image, place(i, groups), column))

    h, _ = plgpu.emit_pipeline(
        run_group,
        grid=(groups,),
        in_specs=[cut(name) for name in streams],
        max_concurrent_steps=SLOTS,
        init_carry=([zeros for _ in range(states)], zeros),
    )(*(refs[name] for name in streams))
    for n in range(states):
        last_ref[image, n, block] = h[n]


def softplus(x: jax.Array) -> jax.Array:
    """log(1 + exp(x)), relatively exact however small."""
    e = jnp.exp2(jnp.abs(x) * -LOG2_E)
    polynomial = LOG1P[0]
    for coefficient in LOG1P[1:]:
        polynomial = polynomial * e + coefficient
    return jnp.maximum(x, 0) + jnp.where(e < 0.25, polynomial * e, jnp.log(1 + e))


def sigmoid(x: jax.Array) -> jax.Array:
    """1 / (1 + exp(-x)); the root is one instruction, where a division takes ten."""
    return jnp.square(lax.rsqrt(1 + jnp.exp2(x * -LOG2_E)))

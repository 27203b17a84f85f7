"""`selective_scan`: argument checks and the choice of an implementation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from kernels import capability
from kernels.array_types import Channels, ChannelStates, InnerTokens, Positions, States, TokenStates
from kernels.selective_scan import associative, pallas_mosaic, pallas_triton, reference
from kernels.selective_scan.inputs import Gaps, Scan
from kernels.selective_scan.order import by_gathering

ALIGNMENTS = ("previous", "constant", "none")

# Computes `(y [B,K,E], last state [B,E,N])` of a checked scan, or raises `NotImplementedError` with
# the reason why it cannot run this one here.
Implementation = Callable[[Scan], tuple[InnerTokens, States]]

IMPLEMENTATIONS: dict[str, Implementation] = {
    "reference": by_gathering(reference.scan),
    "associative": by_gathering(associative.scan),
    "pallas_triton": pallas_triton.scan,
    "pallas_mosaic": by_gathering(pallas_mosaic.scan),
}


def selective_scan(
    u: InnerTokens,
    delta: InnerTokens,
    A: ChannelStates,
    B: TokenStates,
    C: TokenStates,
    D: Channels | None = None,
    z: InnerTokens | None = None,
    *,
    delta_bias: Channels | None = None,
    delta_softplus: bool = False,
    positions: Positions | None = None,
    alignment: str = "previous",
    gap_delta: Channels | None = None,
    reverse: bool = False,
    order: Positions | None = None,
    return_last_state: bool = False,
    implementation: str | None = None,
) -> InnerTokens | tuple[InnerTokens, States]:
    """Selective scan over kept tokens, with the hidden state moved through the pruned ones.

    With `step = softplus(delta + delta_bias)` and `Gamma_k` the sum of gamma over the positions
    pruned between kept tokens `k-1` and `k` (in scan order)::

        h_k = exp((step_k + Gamma_k) A) h_{k-1} + step_k B_k u_k
        y_k = (C_k . h_k + D u_k) silu(z_k)

    This is equation 6 of "Exploring Token Pruning in Vision State Space Models" applied once per
    gap. Without `positions` it is the ordinary selective scan of Mamba. Every argument but
    `positions` is differentiable.

    Args:
      u: [B,K,E] input, floating.
      delta: [B,K,E] step sizes; raw when `delta_softplus`.
      A: [E,N] negative real diagonal.
      B: [B,K,N] input projection.
      C: [B,K,N] output projection.
      D: [E] skip connection.
      z: [B,K,E] gate.
      delta_bias: [E], added to delta before the softplus.
      delta_softplus: whether the step is `softplus(delta + delta_bias)` or the sum itself.
      positions: [B,K] integer original positions, strictly increasing along K; None is no gaps.
      alignment: gamma of a pruned position: `previous`, the step of the kept token before it;
        `constant`, `gap_delta`; `none`, zero.
      gap_delta: [E] positive steps, given with and only with `alignment="constant"`.
      reverse: scan from the last token to the first.
      order: [B,K] integer, a permutation of the rows of each image: step k reads u and z, and
        writes y, at row `order[:, k]`, and everything else at k. GPU kernels read the rows in
        place, so the paths of a grid cost no copies of u and y.
      return_last_state: also return the state after the last token in scan order.
      implementation: a name in `IMPLEMENTATIONS`, which runs or raises, or None for the best one:
        `pallas_triton` where computations go to a CUDA GPU that runs it, else `reference`.

    Returns:
      y: [B,K,E] of u's dtype; with `return_last_state`, also the state [B,E,N] in float32
      (float64 when any input is).

    Raises:
      ValueError: naming the argument that has a wrong shape, dtype or value.
      NotImplementedError: the named implementation cannot run here.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment is {alignment!r}; choose one of {', '.join(ALIGNMENTS)}.")
    if (gap_delta is not None) != (alignment == "constant"):
        raise ValueError(
            f'gap_delta belongs to alignment="constant" and only to it; alignment is {alignment!r} '
            f"and gap_delta is {'missing' if gap_delta is None else 'given'}."
        )
    operands = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z}
    operands |= {"delta_bias": delta_bias, "gap_delta": gap_delta}
    arrays = {name: jnp.asarray(array) for name, array in operands.items() if array is not None}
    _check_arrays(arrays)
    if positions is not None:
        _check_positions(positions, arrays["u"].shape[:2])
        positions = jnp.asarray(positions).astype(jnp.int32)
    if order is not None:
        order = jnp.asarray(order)
        _check_order(order, arrays["u"].shape[:2])
        order = order.astype(jnp.int32)
    gaps = Gaps(positions, alignment, arrays.pop("gap_delta", None))
    inputs = Scan(**arrays, gaps=gaps, order=order, softplus=delta_softplus, reverse=reverse)
    y, last_state = run_scan(inputs, implementation)
    return (y, last_state) if return_last_state else y


def run_scan(inputs: Scan, implementation: str | None = None) -> tuple[InnerTokens, States]:
    """y and the last state, as `selective_scan` gives them, of inputs that need no check.

    Raises:
      ValueError: an unknown implementation.
      NotImplementedError: the named implementation cannot run here.
    """
    name = _best(inputs) if implementation is None else implementation
    if not isinstance(name, str) or name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation is {name!r}; choose one of {', '.join(IMPLEMENTATIONS)}.")
    return IMPLEMENTATIONS[name](inputs)


def _best(inputs: Scan) -> str:
    """The fastest implementation; the figures are in kernels/README.md."""
    single = inputs.dtype == jnp.float32
    return "pallas_triton" if single and capability.has_cuda() else "reference"


def _check_arrays(arrays: dict[str, jax.Array]) -> None:
    for name, axes in (("u", "[B,K,E]"), ("A", "[E,N]")):
        if arrays[name].ndim != axes.count(",") + 1:
            raise ValueError(f"{name} has shape {arrays[name].shape}; it must be {axes}.")
    (b, k, e), n = arrays["u"].shape, arrays["A"].shape[1]
    tokens, channels, states = (b, k, e), (e,), (b, k, n)
    shapes = {"u": tokens, "delta": tokens, "A": (e, n), "B": states, "C": states, "D": channels}
    shapes |= {"z": tokens, "delta_bias": channels, "gap_delta": channels}
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(
                f"{name} has shape {array.shape}; u {(b, k, e)} and A {arrays['A'].shape} ask for "
                f"{shapes[name]}."
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} has dtype {array.dtype}; it must be floating.")
    if 0 in (b, k, e, n):
        raise ValueError(f"u {(b, k, e)} and A {(e, n)} must not have an axis of length 0.")


def _check_positions(positions: jax.typing.ArrayLike, shape: tuple[int, ...]) -> None:
    positions = positions if isinstance(positions, Tracer) else np.asarray(positions)
    if positions.shape != shape:
        raise ValueError(f"positions has shape {positions.shape}; u asks for {shape}.")
    if not jnp.issubdtype(positions.dtype, jnp.integer):
        raise ValueError(f"positions has dtype {positions.dtype}; it must be integer.")
    if isinstance(positions, Tracer):
        return
    least, most = positions.min(), positions.max()
    if least < 0 or most > np.iinfo(np.int32).max:
        wrong = least if least < 0 else most
        raise ValueError(f"positions holds {wrong}; original positions are 0 to 2**31 - 1.")
    falls = positions[:, 1:] <= positions[:, :-1]
    if falls.any():
        row = int(np.argmax(falls.any(axis=1)))
        raise ValueError(f"positions[{row}] is not strictly increasing; sort the kept indices.")


def _check_order(order: jax.Array, shape: tuple[int, ...]) -> None:
    if order.shape != shape or not jnp.issubdtype(order.dtype, jnp.integer):
        raise ValueError(
            f"order is {order.dtype} {order.shape}; u asks for whole numbers of shape {shape}."
        )
    if isinstance(order, Tracer):
        return
    if (np.sort(order, axis=1) != np.arange(shape[1])).any():
        raise ValueError(f"order must hold each of the rows 0 to {shape[1] - 1} once per image.")

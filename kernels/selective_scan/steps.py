"""What the implementations share: everything around `h = exp(decay A) h + step u B`."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from kernels.selective_scan.inputs import Scan


def prepare(scan: Scan) -> Scan:
    """The scan without skip and gate, its arrays of the state's dtype, its deltas the steps."""
    u, A, B, C = (a.astype(scan.dtype) for a in (scan.u, scan.A, scan.B, scan.C))
    gaps = scan.gaps
    if gaps.delta is not None:
        gaps = replace(gaps, delta=gaps.delta.astype(scan.dtype))
    return Scan(u, scan.steps, A, B, C, gaps=gaps, order=scan.order, reverse=scan.reverse)


def pruned_before(scan: Scan) -> jax.Array | None:
    """[B,K] pruned positions just before each kept token in scan order, of the state's dtype.

    0 at the first token; None where the scan sees no gap.
    """
    positions = scan.gaps.positions
    if positions is None or scan.gaps.alignment == "none" or positions.shape[1] == 1:
        return None
    between = jnp.diff(positions, axis=1) - 1
    return jnp.pad(between, ((0, 0), (0, 1) if scan.reverse else (1, 0))).astype(scan.dtype)


def later_decays(scan: Scan, pruned: jax.Array) -> jax.Array:
    """The decays of all kept tokens but the first in scan order, whose state is still zero.

    A decay is the step plus Gamma, the sum of gamma over the gap before the token (equation 6 of
    the paper, once per pruned position).

    Args:
      scan: as `prepare` returns it.
      pruned: [B,K], its `pruned_before`.

    Returns:
      [B,K-1,E].
    """
    later, earlier = slice(1, None), slice(None, -1)
    if scan.reverse:
        later, earlier = earlier, later
    gamma = scan.delta[:, earlier] if scan.gaps.delta is None else scan.gaps.delta
    return scan.delta[:, later] + pruned[:, later, None] * gamma


def decays(scan: Scan) -> jax.Array:
    """[B,K,E], of all kept tokens of a scan that is prepared."""
    pruned = pruned_before(scan)
    if pruned is None:
        return scan.delta
    parts = [scan.delta[:, :1], later_decays(scan, pruned)]
    if scan.reverse:
        parts = [parts[1], scan.delta[:, -1:]]
    return jnp.concatenate(parts, axis=1)


def finish(scan: Scan, y: jax.Array) -> jax.Array:
    """`(y + D u) silu(z)`, computed in y's dtype, returned in u's."""
    if scan.D is not None:
        y = y + scan.D.astype(y.dtype) * scan.u.astype(y.dtype)
    if scan.z is not None:
        y = y * jax.nn.silu(scan.z.astype(y.dtype))
    return y.astype(scan.u.dtype)

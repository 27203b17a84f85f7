"""What the Triton kernels share: the options of a scan, its operands in memory, its tokens."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels.selective_scan.lanes import LANES, Lanes, deal, uniform
from kernels.selective_scan.tuning import Tiling

Hand = list[jax.Array]  # One array [32] for each channel of a lane.


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static side of a scan; which optional operands there are shows in the operands."""

    softplus: bool
    reverse: bool
    tiling: Tiling
    interpret: bool


# Operands by kind, with E a multiple of the block and N a power of two. A is in powers of two:
# the state decays by 2**(total A). gaps are float32 counts, without gradient.
TOKENS = ("u", "delta", "z")  # [B,K,E], as given
STATES = ("B", "C")  # [B,K,N], as given
CHANNELS = ("D", "delta_bias", "gap_delta")  # [E] float32
MATRIX = ("A",)  # [N,E] float32
GAPS = ("gaps",)  # [B,K]


def specs(operands: dict[str, jax.Array], block: int) -> dict[str, pl.BlockSpec]:
    """How operands, or gradients named like them, are cut for the grid (blocks, B)."""
    length = operands["u"].shape[1]

    def spec(name, array):
        if name in TOKENS:
            return pl.BlockSpec((None, length, block), lambda c, b: (b, 0, c))
        if name in CHANNELS:
            return pl.BlockSpec((block,), lambda c, b: (c,))
        if name in MATRIX:
            return pl.BlockSpec((array.shape[0], block), lambda c, b: (0, c))
        return pl.BlockSpec((None, *array.shape[1:]), lambda c, b: (b, *[0] * (array.ndim - 1)))

    return {name: spec(name, array) for name, array in operands.items()}


class Block:
    """The operands of one program of a kernel: 32 lanes of channels, all tokens of an image."""

    def __init__(self, refs: dict, plan: Plan):
        self.refs, self.plan, self.lanes = refs, plan, Lanes(plan.interpret)
        self.length, self.states = refs["B"].shape
        self.hand = range(plan.tiling.channels)
        self.A = self.matrix(refs["A"])
        self.D, self.bias, self.gap_delta = (
            deal(refs[name][...]) if name in refs else None for name in CHANNELS
        )
        # Whether the total of a token needs the step of the one before it.
        self.looks_back = "gaps" in refs and self.gap_delta is None

    def matrix(self, ref) -> list[Hand]:
        """ref [N,block] as [N][channels of a lane]."""
        return [deal(ref[n]) for n in range(self.states)]

    def zeros(self) -> Hand:
        return [jnp.zeros(LANES, jnp.float32) for _ in self.hand]

    def place(self, k) -> jax.Array:
        """Where the k-th token in scan order lies."""
        return self.length - 1 - k if self.plan.reverse else k

    def row(self, name: str, token) -> Hand:
        return deal(self.refs[name][token].astype(jnp.float32))

    def uniform(self, name: str, token) -> list[jax.Array]:
        """B or C of a token, each element in every lane."""
        return uniform(self.refs[name], token)

    def step(self, token) -> tuple[Hand, Hand | None]:
        """The step of a token, and its derivative where there is a softplus."""
        raw = self.row("delta", token)
        if self.bias is not None:
            raw = [r + b for r, b in zip(raw, self.bias, strict=True)]
        if not self.plan.softplus:
            return raw, None
        step, slope = zip(*map(self.lanes.softplus, raw), strict=True)
        return list(step), list(slope)

    def gap(self, token) -> jax.Array | None:
        """[32] the pruned positions before a token in scan order."""
        return jnp.full(LANES, self.refs["gaps"][token]) if "gaps" in self.refs else None

    def total(self, gap: jax.Array | None, step: Hand, before: Hand) -> Hand:
        """The step and Gamma of a token, with the step of the token before it."""
        if gap is None:
            return step
        gamma = before if self.gap_delta is None else self.gap_delta
        return [self.lanes.fma(gap, g, s) for g, s in zip(gamma, step, strict=True)]

    def advance(self, h: list[Hand], total: Hand, x: Hand, B: list[jax.Array]) -> list[Hand]:
        """2**(total A) h + x B."""
        fma, exp2 = self.lanes.fma, self.lanes.exp2
        return [
            [fma(exp2(total[i] * self.A[n][i]), h[n][i], x[i] * B[n]) for i in self.hand]
            for n in range(self.states)
        ]

    def read(self, h: list[Hand], C: list[jax.Array], u: Hand) -> Hand:
        """C . h + D u."""
        y = self.zeros() if self.D is None else [d * v for d, v in zip(self.D, u, strict=True)]
        for n in range(self.states):
            y = [self.lanes.fma(C[n], h[n][i], y[i]) for i in self.hand]
        return y


def for_groups(length: int, tokens: int, body, carry, *, backwards: bool = False):
    """carry after body(group, first token, number of tokens, carry) for all groups of a sequence.

    Groups of `tokens` come first in scan order, then groups of one: no length needs padding.
    """
    full, rest = divmod(length, tokens)
    runs = [(0, 0, tokens, full), (full, full * tokens, 1, rest)]
    for group, first, size, count in runs[::-1] if backwards else runs:

        def run(i, carry, group=group, first=first, size=size, count=count):
            i = count - 1 - i if backwards else i
            return body(group + i, first + i * size, size, carry)

        if count:
            carry = lax.fori_loop(0, count, run, carry)
    return carry


def groups(length: int, tokens: int) -> int:
    """The number of groups that `for_groups` makes."""
    return sum(divmod(length, tokens))

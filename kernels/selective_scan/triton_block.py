"""What the Triton kernels share: the options of a scan, its operands in memory, its tokens."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels.selective_scan.lanes import LANES, Lanes, load_row

MAX_STATES = 16  # More are scanned in pieces: a lane keeps the states of its channel in registers.
GROUP = (
    4  # Tokens unrolled together. With 8, the backward pass needs more registers than there are.
)

# Operands by kind, with E a multiple of 32 and N 2, 4, 8 or 16. A is in powers of two: the state
# decays by 2**(total A). The gaps are counts, without gradient. All but TOKENS and ORDER are
# float32.
TOKENS = ("u", "delta", "z")  # [B,K,E], of any dtype
STATES = ("B", "C")  # [B,K,N]
CHANNELS = ("D", "delta_bias", "gap_delta")  # [E]
MATRIX = "A"  # [N,E]
GAPS = "gaps"  # [B,K]
ORDER = "order"  # [B,K] int32, without gradient
SHARED = (*CHANNELS, MATRIX)  # By all images.

Operands = dict[str, jax.Array]  # By name; those that are there.
Refs = dict[str, Any]  # Of operands or results, in a kernel.


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static side of a scan; which optional operands there are shows in the operands.

    Attributes:
      softplus: whether steps are the softplus of delta.
      reverse: whether the last token comes first.
      tokens: unrolled together; the gradient keeps one state for as many.
      interpret: run as plain JAX, on any platform.
    """

    softplus: bool
    reverse: bool
    tokens: int
    interpret: bool


def cut(shape: tuple[int, ...]) -> pl.BlockSpec:
    """For the grid (E/32, B): [B,...,E] by image and channels."""
    middle = shape[1:-1]
    return pl.BlockSpec((None, *middle, LANES), lambda c, b: (b, *[0] * len(middle), c))


def cuts(operands: Operands) -> dict[str, pl.BlockSpec]:
    """How each operand is cut for the grid (E/32, B)."""

    def of(name: str, array: jax.Array) -> pl.BlockSpec:
        if name in TOKENS:
            return cut(array.shape)
        if name in SHARED:
            lead = array.shape[:-1]
            return pl.BlockSpec((*lead, LANES), lambda c, b: (*[0] * len(lead), c))
        return pl.BlockSpec((None, *array.shape[1:]), lambda c, b: (b, *[0] * (array.ndim - 1)))

    return {name: of(name, array) for name, array in operands.items()}


class Block:
    """The operands of one program of a kernel: 32 channels, one a lane, and all tokens of an image.

    Arrays are [32]; what has states is a list of N of them.
    """

    def __init__(self, refs: Refs, plan: Plan):
        self.refs, self.plan, self.lanes = refs, plan, Lanes(plan.interpret)
        self.length, self.states = refs["B"].shape
        self.A = [refs[MATRIX][n] for n in range(self.states)]
        self.D, self.bias, self.gap_delta = (
            refs[name][...] if name in refs else None for name in CHANNELS
        )
        # Whether the total of a token needs the step of the one before it.
        self.looks_back = GAPS in refs and self.gap_delta is None

    def zeros(self) -> list[jax.Array]:
        return [jnp.zeros(LANES, jnp.float32)] * self.states

    def place(self, k: Any) -> jax.Array:
        """Where the k-th token in scan order lies."""
        return self.length - 1 - k if self.plan.reverse else k

    def row(self, token: Any) -> jax.Array:
        """Where u, z and y of a token lie."""
        return self.refs[ORDER][token] if ORDER in self.refs else token

    def load(self, name: str, row: Any) -> jax.Array:
        """u, z or delta at a row."""
        return self.refs[name][row].astype(jnp.float32)

    def load_states(self, name: str, token: Any) -> list[jax.Array]:
        """B or C of a token."""
        return load_row(self.refs[name], token)

    def step(self, token: Any) -> tuple[jax.Array, jax.Array | None]:
        """The step of a token, and its derivative where there is a softplus."""
        raw = self.load("delta", token)
        if self.bias is not None:
            raw = raw + self.bias
        return self.lanes.softplus(raw) if self.plan.softplus else (raw, None)

    def gap(self, token: Any) -> jax.Array | None:
        """The pruned positions before a token in scan order."""
        return jnp.full(LANES, self.refs[GAPS][token]) if GAPS in self.refs else None

    def total(self, gap: jax.Array | None, step: jax.Array, before: Any) -> jax.Array:
        """The step and Gamma of a token, with the step of the token before it."""
        if gap is None:
            return step
        return self.lanes.fma(gap, before if self.gap_delta is None else self.gap_delta, step)

    def advance(
        self, h: list[jax.Array], total: jax.Array, x: jax.Array, B: list[jax.Array]
    ) -> list[jax.Array]:
        """2**(total A) h + x B."""
        fma, exp2 = self.lanes.fma, self.lanes.exp2
        return [fma(exp2(total * a), v, x * b) for a, v, b in zip(self.A, h, B, strict=True)]

    def read(self, h: list[jax.Array], C: list[jax.Array], u: jax.Array) -> jax.Array:
        """C . h + D u."""
        y = self.lanes.dot(C, h)
        return y if self.D is None else self.lanes.fma(self.D, u, y)


def for_groups(
    length: int, tokens: int, body: Callable[..., Any], carry: Any, *, backwards: bool = False
) -> Any:
    """carry after body(group, first token, number of tokens, carry) for all groups of a sequence.

    Groups of `tokens` come first in scan order, then groups of one: no length needs padding.
    """
    full, rest = divmod(length, tokens)
    runs = [(0, 0, tokens, full), (full, full * tokens, 1, rest)]
    for group, first, size, count in runs[::-1] if backwards else runs:

        def run(i: Any, carry: Any, these: tuple[int, ...] = (group, first, size, count)) -> Any:
            group, first, size, count = these
            i = count - 1 - i if backwards else i
            return body(group + i, first + i * size, size, carry)

        if count:
            carry = lax.fori_loop(0, count, run, carry)
    return carry


def groups(length: int, tokens: int) -> int:
    """The number of groups that `for_groups` makes."""
    return sum(divmod(length, tokens))

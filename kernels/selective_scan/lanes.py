"""Arithmetic of one warp: arrays [32] with an element in each lane.

Triton has one sensible layout for 32 elements and 32 lanes, so element i lies in lane i, which
`Lanes.sums` relies on. Nothing else here moves data between lanes.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import triton as pltriton

LANES = 32
QUAD = 4  # float32 that a lane loads at once.
LOG2_E, LN_2 = math.log2(math.e), math.log(2)

# log(1 + e) / e for e in [0, 1/4], highest power first; off by less than 3e-7 of its value.
LOG1P = (0.1239915, -0.23515545, 0.33208096, -0.49996215, 0.99999982)


@dataclasses.dataclass(frozen=True)
class Lanes:
    """The operations whose compiled form is chosen by hand; plain JAX when interpreted.

    Triton through XLA contracts no multiplies and adds, and its exponential takes ten instructions.
    """

    interpret: bool

    def fma(self, a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
        """a b + c, rounded once when compiled."""
        return a * b + c if self.interpret else _assembly("fma.rn.f32 $0, $1, $2, $3;", a, b, c)

    def dot(self, a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
        """The sum of products in each lane, as a chain of multiply-adds."""
        total = a[0] * b[0]
        for v, w in zip(a[1:], b[1:], strict=True):
            total = self.fma(v, w, total)
        return total

    def exp2(self, x: jax.Array) -> jax.Array:
        """2**x to 2 units in the last place; results below 2**-126 are 0."""
        return jnp.exp2(x) if self.interpret else _assembly("ex2.approx.ftz.f32 $0, $1;", x)

    def log2(self, x: jax.Array) -> jax.Array:
        """Off by up to 2**-22 in itself for x in [1/2, 2], so poor near x = 1."""
        return jnp.log2(x) if self.interpret else _assembly("lg2.approx.ftz.f32 $0, $1;", x)

    def reciprocal(self, x: jax.Array) -> jax.Array:
        """1/x to 1 unit in the last place; 0 for infinity."""
        return 1 / x if self.interpret else _assembly("rcp.approx.ftz.f32 $0, $1;", x)

    def sigmoid(self, x: jax.Array) -> jax.Array:
        """1 / (1 + exp(-x))."""
        return self.reciprocal(1 + self.exp2(x * -LOG2_E))

    def softplus(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """log(1 + exp(x)), relatively exact however small, and its derivative."""
        e = self.exp2(jnp.abs(x) * -LOG2_E)
        polynomial = jnp.full_like(e, LOG1P[0])
        for coefficient in LOG1P[1:]:
            polynomial = self.fma(polynomial, e, jnp.full_like(e, coefficient))
        log1p = jnp.where(e < 0.25, polynomial * e, self.log2(1 + e) * LN_2)
        inverse = self.reciprocal(1 + e)
        return jnp.maximum(x, 0) + log1p, jnp.where(x < 0, e * inverse, inverse)

    def sums(self, pairs: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
        """[32] whose lane i holds the sum over the lanes of v w, with v, w = pairs[i % len(pairs)].

        A butterfly: each exchange halves the values that a lane holds, so 32 sums take 31 shuffles
        instead of 160. Always in the same order, hence deterministic.

        Args:
          pairs: a power of two and at most 32 of them, neighbours with the same w.
        """
        if self.interpret:
            return jnp.tile(jnp.stack([(v * w).sum() for v, w in pairs]), LANES // len(pairs))
        lane = lax.iota(jnp.int32, LANES)
        odd = (lane & 1) != 0
        # The half to keep is chosen before it is multiplied, which then adds for free.
        values = [
            self.fma(jnp.where(odd, b, a), w, _exchange(jnp.where(odd, a, b) * w, 1))
            for (a, w), (b, _) in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        bit = 2
        while len(values) > 1:
            odd = (lane & bit) != 0
            values = [
                jnp.where(odd, b, a) + _exchange(jnp.where(odd, a, b), bit)
                for a, b in zip(values[::2], values[1::2], strict=True)
            ]
            bit *= 2
        [total] = values
        while bit < LANES:
            total = total + _exchange(total, bit)
            bit *= 2
        return total


def load_row(ref: Any, row: Any) -> list[jax.Array]:
    """Row `row` of ref [K,N], float32, as N arrays [32], each one number in every lane.

    Every lane loads the whole row in the widest pieces: fewer instructions than N scalar loads.
    """
    states = ref.shape[1]
    width = min(states, QUAD)
    within = lax.broadcasted_iota(jnp.int32, (LANES, width), 1)
    quads = (ref[row, within + first] for first in range(0, states, width))
    columns = (c for quad in quads for c in lax.split(quad, [1] * width, axis=1))
    return [column.reshape(LANES) for column in columns]


def _exchange(x: jax.Array, bit: int) -> jax.Array:
    """x of the lane whose number differs in `bit`."""
    return _assembly(f"shfl.sync.bfly.b32 $0, $1, {bit}, 0x1f, 0xffffffff;", x)


def _assembly(instruction: str, *arguments: jax.Array) -> jax.Array:
    [result] = pltriton.elementwise_inline_asm(
        instruction,
        args=arguments,
        constraints=",".join(["=f", *["f"] * len(arguments)]),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct((LANES,), jnp.float32)],
    )
    return result

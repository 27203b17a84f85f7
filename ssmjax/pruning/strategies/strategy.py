"""The interface of a strategy: from the tokens present to a score for each."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ssmjax.pruning.geometry import Geometry


class Signals(NamedTuple):
    """What a block knows of its tokens beside its output; None is what its family has not.

    Attributes:
      output: [B,K,E] what enters an SSM's `out_proj`: the gated output, all directions added.
      delta: [B,K,E] an SSM's step sizes, after bias and softplus, averaged over directions.
      attention: [B,K] float32 (or wider), how much of each token a ViT's class token takes, mean
        over heads.
    """

    output: jax.Array | None = None
    delta: jax.Array | None = None
    attention: jax.Array | None = None


class Tokens(NamedTuple):
    """The tokens that a stage chooses from.

    Attributes:
      signal: the one of `Signals` that the strategy asked for, of the last block, or None.
      features: [B,K,D] float32 (or wider), the tokens themselves.
      positions: [B,K] int32 original positions.
      geometry: where positions are.
      key: a random key; None where the strategy does not go by chance.
    """

    signal: Any
    features: jax.Array
    positions: jax.Array
    geometry: Geometry
    key: Any = None

    @property
    def protected(self) -> jax.Array | None:
        """[B,K] bool, the class token, which is kept whatever its score; None without one."""
        return self.geometry.is_class(self.positions)

    @property
    def cells(self) -> jax.Array:
        """[B,K] raster cells of the grid; H*W for the class token."""
        return self.geometry.cells(self.positions)


class Judgement(NamedTuple):
    """What a strategy says of [B,K] tokens.

    Attributes:
      scores: [B,K] floating; higher is kept, ties go to the lower index, NaN is dropped first.
      targets: [B,K] int32 indices into K: the token that each would be merged into if dropped,
        itself sure to be kept; None is the kept token nearest in order.
    """

    scores: jax.Array
    targets: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to judge tokens.

    Attributes:
      judge: from `Tokens` to `Judgement`; pure, under `jit`, each image on its own.
      needs: the field of `Signals` it reads, or None.
      halves: whether it can drop half of the tokens at most, so that deeper cuts take rounds.
      by_chance: whether it needs a random key.
      shares: whether its scores are shares of a whole, by which tokens can be added up.
    """

    judge: Callable[[Tokens], Judgement]
    needs: str | None = None
    halves: bool = False
    by_chance: bool = False
    shares: bool = False

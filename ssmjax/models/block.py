"""What `Trunk` asks of the blocks that a family brings."""

from typing import Any, Protocol

import jax

from ssmjax.pruning.strategies.strategy import Signals
from ssmjax.pruning.stream import Stream

# What a block gives: the stream after it; what it knows of its tokens; and for the intermediates
# of a model the sum that it normalised, as `residual`, and its mixer's output, as `hidden`.
Passed = tuple[Stream, Signals, Stream]


class DropPath(Protocol):
    """Drop path at a block's own rate; the identity where it does not act."""

    def __call__(self, x: jax.Array, branch: int = 0) -> jax.Array:
        """`x` [B,K,D], some images zeroed; drawn anew for each residual branch of the block."""
        ...


class Block(Protocol):
    """One block of a model.

    `layout` is what its mixer needs to know of where tokens lie, as the family's `layout` gives it;
    `alignment` is that of `PruneConfig`, `implementation` that of `kernels.selective_scan`.
    """

    def __call__(
        self,
        stream: Stream,
        layout: Any,
        drop: DropPath,
        *,
        alignment: str,
        implementation: str | None,
    ) -> Passed: ...


class HalvedBlock(Block, Protocol):
    """A block inside which tokens are pruned: a whole one is its two halves."""

    @property
    def first_half(self) -> Block:
        """Up to where tokens are pruned."""
        ...

    def second_half(self, stream: Stream, drop: DropPath) -> Stream:
        """The rest of the block, on the tokens kept."""
        ...

"""What travels from block to block."""

from typing import NamedTuple

from kernels.array_types import Tokens
from ssmjax.precision import widened


class Stream(NamedTuple):
    """Arrays of the same tokens, which are pruned together.

    Attributes:
      residual: the sum of what blocks have added, in float32 (or wider).
      hidden: what the next block adds to that sum first; None where blocks add their own.
      undropped: `hidden` before drop path; None where nobody looks at it.
    """

    residual: Tokens
    hidden: Tokens | None = None
    undropped: Tokens | None = None

    @property
    def tokens(self) -> Tokens:
        """In float32 (or wider), the sum of `residual` and `hidden`: the tokens' values."""
        residual = widened(self.residual)
        return residual if self.hidden is None else residual + widened(self.hidden)

"""Shapes as types, and the one legend of the dimensions' letters.

    B batch              D model width
    L original length    E inner channels
    K kept tokens        N states
    H W grid             R rank of delta

A letter is the same size in all arguments and results of one call. jaxtyping checks that while the
project's tests run (tests/conftest.py); in use nothing is checked and annotations cost nothing.
"""

from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float, Integer

if TYPE_CHECKING:
    Array = jax.Array
else:
    Array = jax.Array | np.ndarray  # JAX computes with NumPy's arrays too.

Tokens = Float[Array, "B K D"]
TokensAndFrozen = Float[Array, "B _ D"]  # Those of `Tokens`, perhaps followed by frozen ones.
InnerTokens = Float[Array, "B K E"]
TokenStates = Float[Array, "B K N"]
ChannelStates = Float[Array, "E N"]
Channels = Float[Array, "E"]
States = Float[Array, "B E N"]
Positions = Integer[Array, "B K"]

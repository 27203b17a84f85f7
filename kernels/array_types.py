"""Shapes as types, and the one legend of the dimensions' letters.

    B batch                 D model width
    L original length       E inner channels
    K kept tokens           N states
    H W grid of patches     R rank of delta

`jaxtyping` reads them: a letter is the same size in all arguments and results of one call. That is
checked while this project's tests run (tests/conftest.py); in use an annotation costs nothing.
"""

import jax
import numpy as np
from jaxtyping import Float, Integer

Array = jax.Array | np.ndarray  # What callers may pass: JAX takes NumPy's arrays too.

# Of a scan, as arguments of public functions.
Tokens = Float[Array, "B K E"]
States = Float[Array, "B K N"]
Decay = Float[Array, "E N"]
Channels = Float[Array, "E"]
Positions = Integer[Array, "B K"]

"""A test in each of chex's variants: compiled or not, on arrays of the device or NumPy's."""

from typing import Any

import chex

in_all_variants: Any = chex.variants(
    with_jit=True, without_jit=True, with_device=True, without_device=True
)

"""Maps of another size, and means over a fixed number of bins."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssmjax.precision import widened


def resize(maps: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Bilinear, half-pixel centres, border repeated, no antialiasing: [...,H,W,C] to `shape`.

    As PyTorch's `interpolate` with `align_corners=False`; computed in float32 (or wider).
    """
    size = (*maps.shape[:-3], *shape, maps.shape[-1])
    return jax.image.resize(widened(maps), size, "linear", antialias=False).astype(maps.dtype)


def adaptive_average_pool(maps: jax.Array, bins: int) -> jax.Array:
    """Means over `bins` x `bins` parts: [...,H,W,C] to [...,bins,bins,C].

    Bin i covers the cells from floor(i H / bins) to ceil((i + 1) H / bins), the last one left out;
    bins overlap where their number does not divide H. Computed in float32 (or wider).
    """
    wide = widened(maps)
    rows, columns = (jnp.asarray(_bin_means(n, bins), wide.dtype) for n in maps.shape[-3:-1])
    means = jnp.einsum(
        "ih,jw,...hwc->...ijc",
        rows,
        columns,
        wide,
        precision=lax.Precision.HIGHEST,
    )
    return means.astype(maps.dtype)


def _bin_means(size: int, bins: int) -> np.ndarray:
    """[bins,size]: the share of each cell in each bin."""
    edges, cell = np.arange(bins + 1) * size, np.arange(size)
    begin, end = edges[:-1, None] // bins, -(-edges[1:, None] // bins)
    return ((cell >= begin) & (cell < end)) / (end - begin)

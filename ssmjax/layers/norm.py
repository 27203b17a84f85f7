"""Normalisation, computed in float32 whatever the compute dtype."""

import contextlib
import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from flax import errors, nnx
from jax import lax

from ssmjax.precision import widened

MOMENTUM = 0.1  # Of PyTorch: how far stored statistics move to those of a batch.

layer_norm = partial(nnx.LayerNorm, epsilon=1e-6, use_fast_variance=False)


@contextlib.contextmanager
def changing_statistics() -> Iterator[None]:
    """Around what changes statistics in place; raises ValueError where JAX forbids it."""
    try:
        yield
    except errors.TraceContextError as error:
        raise ValueError(
            "Training moves the statistics of this model's batch norms in place, which a function "
            "that JAX transforms may only do to a model of its own: merge it there, by "
            "nnx.merge(graphdef, ..., copy=True), and return nnx.state(model, nnx.BatchStat); or "
            "give the model to nnx.jit or nnx.grad."
        ) from error


class RMSNorm(nnx.Module):
    """`x / rms(x) * scale` over the last axis; the official Vim norm, weight only."""

    def __init__(self, features: int, *, epsilon: float, dtype: jnp.dtype):
        self.scale = nnx.Param(jnp.ones(features))
        self.epsilon, self.dtype = epsilon, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] in float32 (or wider) to [..., D] of `self.dtype`."""
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return (x * lax.rsqrt(mean_square + self.epsilon) * self.scale[...]).astype(self.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over the last axis; eps 1e-5.

    By stored statistics, unless told to `train`: those are buffers that come with the weights, and
    images then never influence one another.

    Attributes:
      synchronised: whether a batch trains by its statistics as a whole (PyTorch's SyncBatchNorm),
        or each device by those of its own images (PyTorch's BatchNorm2d, under
        DistributedDataParallel). The first device's then move the stored ones, as what the official
        code evaluates and saves are those of its process 0.
      devices: how many share a batch, each the same number of rows, one after the other; a training
        step sets it.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        # Batches the statistics have seen: kept for the way back to PyTorch.
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.synchronised, self.devices = True, 1

    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalise.

        Args:
          x: [...,D].
          train: by the statistics of this batch, which also move the stored ones a tenth of the
            way to themselves, in place, variances as the unbiased estimate (PyTorch's way).
          mask: bool of x's first axes, as [R] for x [R,H,W,D]; false for what the statistics of
            the batch leave out. If they leave out all, the stored ones stay.

        Returns:
          [...,D] of x's dtype; computed in float32 (or wider).

        Raises:
          ValueError: with `train`, inside a function that JAX transforms, of a norm from outside.
        """
        wide = widened(x)
        if not train:
            return self._normalised(wide, self.mean[...], self.var[...]).astype(x.dtype)
        shares = 1 if self.synchronised else self.devices
        wide = wide.reshape(shares, len(x) // shares, *x.shape[1:])
        if mask is not None:
            ones = (1,) * (x.ndim - mask.ndim)
            mask = mask.reshape(shares, len(x) // shares, *mask.shape[1:], *ones)
        mean, var = self._update(wide, mask)
        return self._normalised(wide, mean, var).reshape(x.shape).astype(x.dtype)

    def _normalised(self, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        return (x - mean) * (lax.rsqrt(var + 1e-5) * self.scale[...]) + self.bias[...]

    def _update(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Mean and biased variance [S,1,...,D] of shares [S,...,D], after the stored have moved."""
        axes, where = tuple(range(1, x.ndim - 1)), None
        number = jnp.full((len(x),) + (1,) * (x.ndim - 1), math.prod(x.shape[1:-1]), x.dtype)
        if mask is not None:
            where = jnp.broadcast_to(mask, (*x.shape[:-1], 1))
            number = where.sum(axes, dtype=x.dtype, keepdims=True)
        mean = jnp.sum(x, axes, where=where, keepdims=True) / jnp.maximum(number, 1)
        squares = jnp.sum(jnp.square(x - mean), axes, where=where, keepdims=True)
        unbiased = squares / jnp.maximum(number - 1, 1)
        counts = number[0].ravel()[0] > 0
        rate = jnp.where(counts, MOMENTUM, 0)
        with changing_statistics():
            for stored, new in ((self.mean, mean), (self.var, unbiased)):
                old = stored[...]
                moved = old + rate * (lax.stop_gradient(new[0].ravel()) - old)
                stored.set_value(moved.astype(old.dtype))
            self.count.set_value(self.count[...] + counts)
        return mean, squares / jnp.maximum(number, 1)

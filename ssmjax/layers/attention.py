"""Multi-head self-attention, which also says what attended to what."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kernels.array_types import Array, Tokens
from ssmjax.layers.initial import linear
from ssmjax.precision import wide_dtype


class SelfAttention(nnx.Module):
    """Softmax attention among all tokens (arXiv 2010.11929).

    Written out, since `jax.nn.dot_product_attention` keeps its weights to itself and takes every
    softmax in float32, float64 inputs too.
    """

    def __init__(self, features: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.qkv = linear(features, 3 * features, dtype=dtype, rngs=rngs)
        self.proj = linear(features, features, dtype=dtype, rngs=rngs)
        self.heads = heads

    def __call__(self, x: Tokens) -> tuple[Tokens, Float[Array, "B heads K K"]]:
        """Mix normalised tokens.

        Also returns, in float32 (or wider), how much of each token (last axis) each token takes;
        rows sum to 1.
        """
        B, K, D = x.shape
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(B, K, 3, self.heads, -1), 2, 0)
        wide = wide_dtype(x.dtype)
        products = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide)
        weights = jax.nn.softmax(products * q.shape[-1] ** -0.5)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)
        return self.proj(mixed.reshape(B, K, D)), weights

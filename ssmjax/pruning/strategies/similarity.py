"""Redundancy: tokens in even places that resemble one in an odd place go first.

The bipartite matching of ToMe (arXiv 2210.09461), with tokens kept in order as R-MeeTo does
(arXiv 2412.12496): with `reduction="merge"` each joins its match. `local` compares a token with its
two neighbours in order only, `global` with all odd places.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ssmjax.pruning.select import gather_tokens
from ssmjax.pruning.strategies.strategy import Judgement, Strategy, Tokens


def judge(tokens: Tokens, *, local: bool) -> Judgement:
    """Minus the cosine similarity to the best match in even places, infinity in odd ones."""
    present = jnp.broadcast_to(
        jnp.arange(tokens.positions.shape[1], dtype=jnp.int32), tokens.positions.shape
    )
    protected = tokens.protected
    if protected is None:
        return Judgement(*_match(tokens.features, present, local))
    # Places count image tokens only: those in order, without the class token.
    images = jnp.argsort(protected, axis=1, stable=True)[:, :-1]
    found = _match(gather_tokens(tokens.features, images), images, local)
    place = jnp.maximum(jnp.cumsum(~protected, axis=1) - 1, 0)
    scores, targets = (jnp.take_along_axis(a, place, axis=1) for a in found)
    return Judgement(
        jnp.where(protected, jnp.inf, scores),
        jnp.where(protected, present, targets),
    )


def _match(features: jax.Array, indices: jax.Array, local: bool) -> tuple[jax.Array, jax.Array]:
    """Scores and targets of [B,M,D] features; `indices` [B,M] is what to call them in targets."""
    unit = features * lax.rsqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True) + 1e-12)
    even, odd = unit[:, ::2], unit[:, 1::2]
    similarity = jnp.einsum("bid,bjd->bij", even, odd, precision=lax.Precision.HIGHEST)
    similarity = jnp.where(jnp.isnan(similarity), -jnp.inf, similarity)
    if local:
        i, j = jnp.arange(even.shape[1])[:, None], jnp.arange(odd.shape[1])
        similarity = jnp.where((j == i) | (j == i - 1), similarity, -jnp.inf)
    best = 2 * jnp.argmax(similarity, axis=-1) + 1
    resemblance = jnp.where(jnp.isnan(even[:, :, 0]), jnp.nan, jnp.max(similarity, axis=-1))
    scores = jnp.full(indices.shape, jnp.inf, unit.dtype).at[:, ::2].set(-resemblance)
    targets = indices.at[:, ::2].set(jnp.take_along_axis(indices, best, axis=1))
    return scores, targets


STRATEGIES = {
    "similarity_local": Strategy(partial(judge, local=True), halves=True),
    "similarity_global": Strategy(partial(judge, local=False), halves=True),
}

"""One pruning stage: judge the tokens, keep the best, drop the others, merge or fuse them."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from kernels.array_types import Array, Positions
from ssmjax.precision import widened
from ssmjax.pruning.config import PruneConfig
from ssmjax.pruning.geometry import Geometry
from ssmjax.pruning.select import gather_tokens, select_tokens
from ssmjax.pruning.strategies.strategy import Tokens
from ssmjax.pruning.stream import Stream


class Present(NamedTuple):
    """The tokens of a pruned model.

    Attributes:
      stream: their features.
      positions: [B,K] int32 original positions, increasing; L or more for fused tokens.
      sizes: [B,K] how many patches each stands for, in float32; None where nothing is merged.
    """

    stream: Stream
    positions: Positions
    sizes: Float[Array, "B K"] | None


def reduce_tokens(
    prune: PruneConfig,
    present: Present,
    count: int,
    geometry: Geometry,
    *,
    signal: Float[Array, "B K *rest"] | None,
    key: jax.Array | None,
) -> Present:
    """Keep `count` image tokens of every image, and its class token if there is one.

    Fusing adds one token behind them.

    Args:
      prune: which tokens to keep, and what becomes of the others.
      present: the tokens.
      count: image tokens to keep, static and fewer than there are.
      geometry: where positions are, and which stage this is.
      signal: of the block before, what the strategy needs; see `Strategy.needs`.
      key: a random key, or None.

    Raises:
      ValueError: a strategy that works by chance, without a key.
    """
    strategy, padding = prune.strategy, geometry.padding
    if strategy.by_chance and key is None:
        raise ValueError(
            f'importance="{prune.importance}" needs a key: model(images, key=jax.random.key(0)).'
        )
    patches = present.positions.shape[1] - geometry.others
    for left in _rounds(patches, count, strategy.halves):
        positions = present.positions
        tokens = Tokens(signal, present.stream.tokens, positions, geometry, key)
        judgement, protected = strategy.judge(tokens), tokens.protected
        scores = judgement.scores
        if padding is not None:
            scores = jnp.where(jnp.take_along_axis(padding, positions, axis=1), -jnp.inf, scores)
        kept = select_tokens(scores, left + geometry.others, protected)
        before = present
        if prune.reduction == "merge":
            before = _merge(present, judgement.targets, kept, protected)
        present = jax.tree.map(lambda array: gather_tokens(array, kept), before)  # noqa: B023
        if prune.reduction == "fuse":
            shares = jnp.where(_is_kept(kept, positions.shape[1]), 0, judgement.scores)
            fused = _added(before.stream, shares[:, None])
            present = _append(present, fused, geometry.fused_position)
    return present


def _rounds(tokens: int, count: int, halves: bool) -> Iterator[int]:
    """How many tokens are left after each round."""
    while tokens > count:
        tokens = max(count, tokens - tokens // 2) if halves else count
        yield tokens


def _merge(
    present: Present, targets: jax.Array | None, kept: jax.Array, protected: jax.Array | None
) -> Present:
    """Kept tokens [B,count] become the mean of their group, weighted by size; others are not kept.

    A sum by matrix product has one order, so that gradients are deterministic; scattered sums on
    GPUs are not.
    """
    stream, positions, sizes = present
    if sizes is None:
        sizes = jnp.ones(positions.shape)
    index = jnp.arange(positions.shape[1], dtype=jnp.int32)
    is_kept = _is_kept(kept, positions.shape[1])
    if targets is None:
        able = is_kept if protected is None else is_kept & ~protected
        targets = _nearest(positions, able)
    targets = jnp.where(is_kept, index, targets)
    groups = jnp.where(targets[:, None, :] == index[:, None], sizes[:, None, :], 0)
    totals = groups.sum(axis=2)
    shares = groups / jnp.maximum(totals, 1)[..., None]
    return Present(_added(stream, shares), positions, totals)


def _added(stream: Stream, shares: jax.Array) -> Stream:
    """Sums of the tokens [B,K,D], each times its share in [B,count,K]: [B,count,D]."""

    def add(part: jax.Array) -> jax.Array:
        added = jnp.einsum("bij,bjd->bid", shares, widened(part), precision=lax.Precision.HIGHEST)
        return added.astype(part.dtype)

    return jax.tree.map(add, stream)


def _append(present: Present, stream: Stream, position: int) -> Present:
    """One token more, with `stream` [B,1,D], behind the others."""
    positions = jnp.pad(present.positions, ((0, 0), (0, 1)), constant_values=position)
    joined = jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), present.stream, stream)
    return Present(joined, positions, present.sizes)


def _is_kept(kept: jax.Array, tokens: int) -> jax.Array:
    """[B,tokens] bool, whether a token is among the indices `kept` [B,count]."""
    index = jnp.arange(tokens, dtype=jnp.int32)
    return jnp.any(kept[:, None, :] == index[:, None], axis=2)


def _nearest(positions: jax.Array, able: jax.Array) -> jax.Array:
    """[B,K] index of the token nearest in position among those `able`, ties to the lower."""
    distance = jnp.abs(positions[:, :, None] - positions[:, None, :])
    distance = jnp.where(able[:, None, :], distance, jnp.iinfo(jnp.int32).max)
    return jnp.argmin(distance, axis=2).astype(jnp.int32)

"""What all families share: the way of an image from patches to logits, with pruning on it."""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.layers.drop_path import drop_path
from ssmjax.models.config import BackboneConfig
from ssmjax.pruning.config import PruneConfig
from ssmjax.pruning.reduce import Present, Stream, reduce_tokens


class Backbone(nnx.Module):
    """A classifier made of equal blocks over tokens, pruned between blocks on request.

    The parameters of all blocks are stacked along a leading axis, so that the blocks between two
    pruning stages are one `lax.scan` and compile once. A family gives its config, `blocks`, whose
    call is `(stream, layout, drop, alignment=..., implementation=...)` to `(stream, signals,
    (hidden, residual))`, where `drop(x, branch)` is drop path, drawn anew for each residual branch
    of the block; its `head`, and the methods below.

    Tokens are pruned after a block, or inside it where the family says `prunes_inside`: its blocks
    then have a `first_half` with the call of a whole one, and a `second_half` from `(stream, drop)`
    to the stream.
    """

    prunes_inside: ClassVar[bool] = False

    config: BackboneConfig
    blocks: nnx.Module
    head: nnx.Linear

    def embed(self, images: jax.Array) -> Stream:
        """[B,height,width,channels] to the stream before the first block; K is L."""
        raise NotImplementedError

    def finish(
        self, stream: Stream, positions: jax.Array | None, sizes: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The head's input [B,D], and the [B,K,D] sum that the final norm took.

        `positions` and `sizes` are as in `ssmjax.pruning.reduce.Present`; None: nothing was pruned.
        """
        raise NotImplementedError

    def layout(self, batch: int, positions: jax.Array | None) -> Any:
        """What mixers need to know of positions [batch,K] (None: all are there), once per stage."""
        raise NotImplementedError

    def after_block(self, number: int, stream: Stream, layout: Any) -> Stream:
        """What follows block `number` (1-based) alone, for those in `breaks`."""
        raise NotImplementedError

    @property
    def breaks(self) -> tuple[int, ...]:
        """1-based blocks after which `after_block` has something to do."""
        return ()

    def __call__(
        self,
        images: jax.typing.ArrayLike,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        return_positions: bool = False,
        return_intermediates: bool = False,
        implementation: str | None = None,
        remat: bool = False,
    ) -> Any:
        """Classify images; compiled at the first call with each shape.

        Args:
          images: [B,height,width,channels], normalised as the weights expect.
          key: random key for drop path (with `train`) and `importance="random"`.
          train: whether drop path acts.
          return_positions: also return, per pruning stage, the [B,K] int32 original positions kept;
            L + s is the token that stage s, from 0, fused of others.
          return_intermediates: also return {"hidden": per block [B,K,D], its mixer's output,
            "residual": per block [B,K,D], the sum it normalised, and last the sum that the final
            norm took, "features": [B,D], the head's input}.
          implementation: of the scan; see `kernels.selective_scan`.
          remat: whether a gradient recomputes the insides of each block, to need less memory.

        Returns:
          [B,num_classes] logits in float32 (or wider), followed by what was asked for.

        Raises:
          ValueError: images of another shape than the model's, or a key is needed and missing.
        """
        images = jnp.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.config.image_shape:
            height, width, channels = self.config.image_shape
            raise ValueError(
                f"images has shape {images.shape}; this model takes [batch, {height}, {width}, "
                f"{channels}]. Resize them, or create the model with img_size."
            )
        if images.shape[0] == 0:
            raise ValueError(f"images has shape {images.shape}; give at least one image.")
        if train and self.config.drop_path_rate > 0 and key is None:
            raise ValueError("drop path needs a key: model(images, train=True, key=...).")
        graphdef, state = nnx.split(self)
        logits, stages, intermediates = _forward(
            graphdef, state, images, key, train, return_intermediates, implementation, remat
        )
        results = (logits,) + (stages,) * return_positions + (intermediates,) * return_intermediates
        return results if len(results) > 1 else logits

    def with_prune(self, prune: PruneConfig | None) -> Self:
        """A model with the same values, pruned otherwise. Raises ValueError as the config does."""
        graphdef, state = nnx.split(self)
        model = nnx.merge(graphdef, jax.tree.map(lambda array: array, state))  # New variables.
        model.config = dataclasses.replace(self.config, prune=prune)
        return model

    def _run_blocks(
        self, stream, positions, first, last, strategy, key, trace, implementation, remat
    ):
        """Blocks first to last (0-based, last excluded), scanned over their parameters.

        Where a stage follows, by `strategy`, the last block goes as far as it prunes tokens.
        Returns the stream, what the strategy needs of the last block, and with `trace` a list of
        (hidden, residual) per run of blocks, stacked.
        """
        config, layout = self.config, self.layout(stream[0].shape[0], positions)
        needs = strategy.needs if strategy else None
        options = {
            "alignment": config.prune.alignment if config.prune else "none",
            "implementation": implementation,
        }
        graphdef, stacked = self._stacked(key)

        def run(stream, inputs, tells=False):
            block, drop = _open(graphdef, inputs)
            call = block.first_half if tells and self.prunes_inside else block
            stream, signals, traced = call(stream, layout, drop, **options)
            return stream, (signals if tells else (), traced if trace else ())

        # The block that tells is run apart: in a loop, all would hand their signals on.
        apart = last - 1 if strategy else last
        inside = (number for number in self.breaks if first < number <= last)
        told, outputs = None, []
        for start, stop in itertools.pairwise(sorted({first, apart, last, *inside})):
            inputs = jax.tree.map(lambda a: a[start:stop], stacked)  # noqa: B023
            scanned = partial(run, tells=start == apart)
            stream, (signals, output) = lax.scan(_remat(scanned, remat), stream, inputs)
            outputs.append(output)
            if start == apart and needs:
                told = getattr(signals, needs)[0]
            if stop in self.breaks:
                stream = self.after_block(stop, stream, layout)
        return stream, told, outputs

    def _finish_block(self, number, stream, key, remat):
        """What is left of block `number` (1-based) once its tokens are pruned."""
        if not self.prunes_inside:
            return stream
        graphdef, stacked = self._stacked(key)

        def run(stream, inputs):
            block, drop = _open(graphdef, inputs)
            return block.second_half(stream, drop)

        return _remat(run, remat)(stream, jax.tree.map(lambda a: a[number - 1], stacked))

    def _stacked(self, key):
        """The graph of a block, and along a leading axis: parameters, drop path's rate and key."""
        config = self.config
        graphdef, params = nnx.split(self.blocks)
        keep = 1 - np.linspace(0, config.drop_path_rate, config.depth, dtype=np.float32)
        keys = None if key is None else jax.random.split(key, config.depth)
        return graphdef, (params, keep, keys)


def _remat(run, remat):
    """`run`, of which a gradient keeps the inputs alone where `remat`."""
    return jax.checkpoint(run) if remat else run


def _open(graphdef, inputs):
    """One block of `_stacked`, and its drop path."""
    params, keep, key = inputs

    def drop(x, branch=0):
        return x if key is None else drop_path(x, keep, jax.random.fold_in(key, branch))

    return nnx.merge(graphdef, params), drop


def stack(block: Callable[..., nnx.Module], config: BackboneConfig, rngs: nnx.Rngs) -> nnx.Module:
    """All blocks of a model as one, their parameters stacked along a leading axis."""
    return nnx.vmap(lambda rngs: block(config, rngs=rngs))(rngs.split(config.depth))


@partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def _forward(graphdef, state, images, key, train, trace, implementation, remat):
    """Logits, positions per stage, and intermediates (None without `trace`)."""
    model: Backbone = nnx.merge(graphdef, state)
    config, prune = model.config, model.config.prune
    path_key, prune_key = (None, None) if key is None else jax.random.split(key)
    if not train or config.drop_path_rate == 0:
        path_key = None
    stream = model.embed(images.astype(config.dtype))
    everything = jnp.broadcast_to(
        jnp.arange(config.length, dtype=jnp.int32), (images.shape[0], config.length)
    )
    positions, sizes, stages, traced, first = None, None, [], [], 0
    strategy = prune.strategy if prune else None
    for stage, block in enumerate(prune.after_blocks if prune else ()):
        if config.kept_tokens[stage] < config.image_tokens[stage]:
            stream, signal, outputs = model._run_blocks(
                stream, positions, first, block, strategy, path_key, trace, implementation, remat
            )
            traced += outputs
            stream, positions, sizes = reduce_tokens(
                prune,  # pyright: ignore[reportArgumentType]
                Present(stream, everything if positions is None else positions, sizes),
                config.kept_tokens[stage],
                fused_position=config.length + stage,
                signal=signal,
                class_index=config.class_index,
                grid=config.grid,
                key=None if prune_key is None else jax.random.fold_in(prune_key, stage),
            )
            stream = model._finish_block(block, stream, path_key, remat)
            first = block
        stages.append(everything if positions is None else positions)
    stream, _, outputs = model._run_blocks(
        stream, positions, first, config.depth, None, path_key, trace, implementation, remat
    )
    features, summed = model.finish(stream, positions, sizes)
    logits = model.head(features.astype(config.dtype)).astype(summed.dtype)
    if not trace:
        return logits, stages, None
    hidden, residual = ([a for part in (*traced, *outputs) for a in part[i]] for i in (0, 1))
    return (
        logits,
        stages,
        {
            "hidden": tuple(hidden),
            "residual": (*residual, summed),
            "features": features,
        },
    )

"""What all families share: the way of an image from patches to logits, with pruning on it."""

import dataclasses
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.norm import changing_statistics
from ssmjax.models.trunk import Run, Trunk
from ssmjax.pruning.config import PruneConfig
from ssmjax.pruning.reduce import Present, Stream, reduce_tokens


class Backbone(Trunk):
    """A classifier made of equal blocks over tokens, pruned between blocks on request.

    Beside what `Trunk` asks for, a family gives its `head` and the methods below.
    """

    head: nnx.Linear

    def embed(self, images: jax.Array, *, train: bool = False) -> Stream:
        """[B,height,width,channels] to the stream before the first block; K is L.

        `train` is that of `ssmjax.layers.norm.BatchNorm`.
        """
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
          train: whether drop path acts and batch norms train; the statistics of these then change
            in place. After pruning they are of the tokens left: empty cells do not count.
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
          ValueError: images of another shape than the model's, a key is needed and missing, or
            batch norms would train inside a function that JAX transforms, of a model from outside.
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
        logits, stages, intermediates, statistics = _forward(
            graphdef, state, images, key, train, return_intermediates, implementation, remat
        )
        if train:
            with changing_statistics():
                nnx.update(self, statistics)
        results = (logits,) + (stages,) * return_positions + (intermediates,) * return_intermediates
        return results if len(results) > 1 else logits

    def with_prune(self, prune: PruneConfig | None) -> Self:
        """A model with the same values, pruned otherwise. Raises ValueError as the config does."""
        graphdef, state = nnx.split(self)
        model = nnx.merge(graphdef, jax.tree.map(lambda array: array, state))  # New variables.
        model.config = dataclasses.replace(self.config, prune=prune)
        return model


@partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def _forward(graphdef, state, images, key, train, trace, implementation, remat):
    """Logits, positions per stage, intermediates (None without `trace`) and statistics."""
    model: Backbone = nnx.merge(graphdef, state)
    config, prune = model.config, model.config.prune
    path_key, prune_key = (None, None) if key is None else jax.random.split(key)
    if not train or config.drop_path_rate == 0:
        path_key = None
    stream = model.embed(images.astype(config.dtype), train=train)
    everything = jnp.broadcast_to(
        jnp.arange(config.length, dtype=jnp.int32), (images.shape[0], config.length)
    )
    positions, sizes, stages, traced, first = None, None, [], [], 0
    strategy, alignment = (prune.strategy, prune.alignment) if prune else (None, "none")
    run = Run(path_key, alignment, implementation, remat, trace, batch_statistics=train)
    for stage, block in enumerate(prune.after_blocks if prune else ()):
        if config.kept_tokens[stage] < config.image_tokens[stage]:
            layout = model.layout(images.shape[0], positions)
            stream, signal, outputs = model.run_blocks(stream, layout, first, block, strategy, run)
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
            stream = model.finish_block(block, stream, run)
            first = block
        stages.append(everything if positions is None else positions)
    layout = model.layout(images.shape[0], positions)
    stream, _, outputs = model.run_blocks(stream, layout, first, config.depth, None, run)
    features, summed = model.finish(stream, positions, sizes)
    logits = model.head(features.astype(config.dtype)).astype(summed.dtype)
    statistics = nnx.state(model, nnx.BatchStat)
    if not trace:
        return logits, stages, None, statistics
    hidden, residual = ([a for part in (*traced, *outputs) for a in part[i]] for i in (0, 1))
    return (
        logits,
        stages,
        {
            "hidden": tuple(hidden),
            "residual": (*residual, summed),
            "features": features,
        },
        statistics,
    )

"""What all families share: the way of an image from patches to logits, with pruning on it."""

import dataclasses
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Num

from ssmjax.layers.initial import linear
from ssmjax.layers.norm import changing_statistics
from ssmjax.models.config import BackboneConfig
from ssmjax.models.run import Run
from ssmjax.models.trunk import Trunk
from ssmjax.pruning.config import PruneConfig
from ssmjax.pruning.reduce import Present, reduce_tokens
from ssmjax.pruning.stream import Stream


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
    """What a classifier gives of images.

    Attributes:
      logits: [B,num_classes].
      positions: per pruning stage, [B,K]; see `return_positions` of `Backbone.__call__`.
      intermediates: see `return_intermediates` of `Backbone.__call__`; None where not asked for.
    """

    logits: jax.Array
    positions: list[jax.Array]
    intermediates: dict[str, Any] | None


class Backbone(Trunk):
    """A classifier made of equal blocks over tokens, pruned between blocks on request.

    Beside what `Trunk` asks for, a family gives its `head` and the methods below.
    """

    head: nnx.Linear

    def embed(self, images: jax.Array, *, train: bool = False) -> Stream:
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

    def __call__(
        self,
        images: Num[jax.typing.ArrayLike, "B height width channels"],
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
        run = Run(
            key,
            train=train,
            implementation=implementation,
            remat=remat,
            trace=return_intermediates,
        )
        output, statistics = _forward(*nnx.split(self), images, run)
        if train:
            with changing_statistics():
                nnx.update(self, statistics)
        asked = (output.positions,) * return_positions
        asked += (output.intermediates,) * return_intermediates
        return (output.logits, *asked) if asked else output.logits

    def with_prune(self, prune: PruneConfig | None) -> Self:
        """A model with the same values, pruned otherwise. Raises ValueError as the config does."""
        graphdef, state = nnx.split(self)
        model = nnx.merge(graphdef, jax.tree.map(lambda array: array, state))  # New variables.
        model.config = dataclasses.replace(self.config, prune=prune)
        return model


def head(config: BackboneConfig, *, rngs: nnx.Rngs) -> nnx.Linear:
    """The head of a classifier."""
    return linear(config.embed_dim, config.num_classes, dtype=jnp.dtype(config.dtype), rngs=rngs)


@partial(jax.jit, static_argnums=0)
def _forward(graphdef, state, images: jax.Array, run: Run) -> tuple[Output, nnx.State]:
    """What a model gives of images, and its batch norms' statistics after them."""
    model: Backbone = nnx.merge(graphdef, state)
    config, prune, geometry = model.config, model.config.prune, model.config.geometry
    stream = model.embed(images.astype(config.dtype), train=run.train)
    everything = geometry.everywhere(images.shape[0])
    positions, sizes, stages, traces, first = None, None, [], [], 0
    for stage, block in enumerate(prune.after_blocks if prune else ()):
        if prune and config.kept_tokens[stage] < config.image_tokens[stage]:
            layout = model.layout(images.shape[0], positions)
            stream, signal, traced = model.run_blocks(
                stream, layout, first, block, prune.strategy, run
            )
            traces += traced
            stream, positions, sizes = reduce_tokens(
                prune,
                Present(stream, everything if positions is None else positions, sizes),
                config.kept_tokens[stage],
                dataclasses.replace(geometry, stage=stage),
                signal=signal,
                key=run.choice_key(stage),
            )
            stream = model.finish_block(block, stream, run)
            first = block
        stages.append(everything if positions is None else positions)
    layout = model.layout(images.shape[0], positions)
    stream, _, traced = model.run_blocks(stream, layout, first, config.depth, None, run)
    features, summed = model.finish(stream, positions, sizes)
    logits = model.head(features.astype(config.dtype)).astype(summed.dtype)
    intermediates = None
    if run.trace:
        traces += traced
        intermediates = {
            "hidden": tuple(block for trace in traces for block in trace.hidden),
            "residual": (*(block for trace in traces for block in trace.residual), summed),
            "features": features,
        }
    return Output(logits, stages, intermediates), nnx.state(model, nnx.BatchStat)

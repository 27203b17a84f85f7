"""Equal blocks over tokens, run by ranges: what classifiers and dense models have in common."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.layers.drop_path import drop_path
from ssmjax.layers.initial import NORMAL
from ssmjax.layers.patch_embed import PatchEmbed
from ssmjax.models.block import Block
from ssmjax.models.config import BackboneConfig
from ssmjax.models.run import Run
from ssmjax.pruning.strategies.strategy import Strategy
from ssmjax.pruning.stream import Stream


class Trunk(nnx.Module):
    """The blocks of a model.

    The parameters of all blocks are stacked along a leading axis, so that the blocks between two
    pruning stages are one `lax.scan` and compile once. A family gives its config, its
    `block`, made as `block(config, rngs=rngs)`, and methods in place of those that raise
    NotImplementedError.

    Tokens are pruned after a block, or inside it where the family says `prunes_inside`. A block is
    a `ssmjax.models.block.Block`, or in the latter case a `HalvedBlock`.
    """

    block: ClassVar[Callable[..., Block]]
    prunes_inside: ClassVar[bool] = False

    config: BackboneConfig

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        self.config = config
        self.patch_embed = self.patches(config, rngs=rngs)
        if config.class_index is not None:
            self.cls_token = nnx.Param(NORMAL(rngs.params(), (1, 1, config.embed_dim)))
        self.pos_embed = nnx.Param(NORMAL(rngs.params(), (1, config.length, config.embed_dim)))
        self.blocks = nnx.vmap(lambda rngs: self.block(config, rngs=rngs))(rngs.split(config.depth))

    @staticmethod
    def patches(config: Any, *, rngs: nnx.Rngs) -> nnx.Module:
        """What makes tokens of images."""
        return PatchEmbed(
            config.in_channels,
            config.embed_dim,
            config.patch_size,
            config.step,
            dtype=jnp.dtype(config.dtype),
            rngs=rngs,
        )

    def after_block(self, number: int, stream: Stream, layout: Any, *, train: bool) -> Stream:
        """What follows block `number` (1-based) alone, for those in `breaks`."""
        raise NotImplementedError

    @property
    def breaks(self) -> tuple[int, ...]:
        """1-based blocks after which `after_block` has something to do."""
        return ()

    def drops(self, run: Run) -> bool:
        """Whether drop path acts. Raises ValueError where it would, and there is no key."""
        drops = run.train and self.config.drop_path_rate > 0
        if drops and run.key is None:
            raise ValueError("drop path needs a key: model(images, train=True, key=...).")
        return drops

    def run_blocks(
        self,
        stream: Stream,
        layout: Any,
        first: int,
        last: int,
        strategy: Strategy | None,
        run: Run,
    ) -> tuple[Stream, jax.Array | None, list[Stream]]:
        """Blocks first to last (0-based, last excluded), scanned over their parameters.

        Args:
          stream: what enters them.
          layout: where its tokens lie, as mixers need to know it.
          first: the first block.
          last: the block after the last.
          strategy: of the stage that prunes tokens next, or None: the last block then goes as far
            as it prunes tokens.
          run: how.

        Returns:
          The stream, what the strategy needs of the last block, and with `run.trace` for each run
          of blocks what they normalised (`residual`) and what their mixers gave (`hidden`),
          stacked.
        """
        alignment = self.config.prune.alignment if self.config.prune else "none"
        options = {"alignment": alignment, "implementation": run.implementation}

        def step(stream, block, drop, half=False):
            return (block.first_half if half else block)(stream, layout, drop, **options)

        # The block inside which tokens are pruned is run apart, up to there.
        halved = last - 1 if strategy and self.prunes_inside else last
        inside = (number for number in self.breaks if first < number <= last)
        signal, traces = None, []
        for start, stop in itertools.pairwise(sorted({first, halved, last, *inside})):
            asks = strategy if stop == last else None
            call = partial(step, half=start == halved)
            stream, signal, traced = self._scan(call, stream, start, stop, asks, run)
            traces.append(traced)
            if stop in self.breaks:
                stream = self.after_block(stop, stream, layout, train=run.train)
        return stream, signal, traces

    def finish_block(self, number: int, stream: Stream, run: Run) -> Stream:
        """What is left of block `number` (1-based) once its tokens are pruned."""
        if not self.prunes_inside:
            return stream

        def step(stream, block, drop):
            return block.second_half(stream, drop), None, None

        return self._scan(step, stream, number - 1, number, None, run)[0]

    def _scan(self, step, stream, start, stop, strategy, run):
        """`step(stream, block, drop)`, which gives a `Passed`, over blocks start to stop, 0-based.

        Returns:
          As `run_blocks`.
        """
        config = self.config
        graphdef, params = nnx.split(self.blocks)
        keep = 1 - np.linspace(0, config.drop_path_rate, config.depth, dtype=np.float32)
        keys = jax.random.split(run.drop_key, config.depth) if self.drops(run) else None
        whole = lax.stop_gradient(params)

        def body(carry, inputs):
            number, own, keep, key = inputs

            def drop(x, branch=0):
                return x if key is None else drop_path(x, keep, jax.random.fold_in(key, branch))

            block = nnx.merge(graphdef, _row(own, whole, number))
            stream, signals, traced = step(carry[0], block, drop)
            return (stream, _signal(signals, strategy)), traced if run.trace else None

        rows = jax.tree.map(lambda a: a[start:stop], (params, keep, keys))
        inputs = np.arange(start, stop, dtype=np.int32), *rows
        signal = None
        if strategy and strategy.needs:
            # Part of the carry, so that of all blocks' signals only the last one's is kept.
            one = jax.tree.map(lambda a: a[0], inputs)
            (_, signal), _ = jax.eval_shape(body, (stream, None), one)
            signal = jnp.zeros(signal.shape, signal.dtype)
        body = jax.checkpoint(body) if run.remat else body
        (stream, signal), traced = lax.scan(body, (stream, signal), inputs)
        return stream, signal, traced


def _signal(signals, strategy):
    """What a strategy, if any, needs of `Signals`; no gradient flows through choices."""
    if strategy is None or strategy.needs is None:
        return None
    signal = getattr(signals, strategy.needs)
    return signal if strategy.shares else lax.stop_gradient(signal)


@jax.custom_jvp
def _row(own, whole, number):
    """Row `number` of each array in `whole`; `own` holds the same values.

    The blocks of a range are a slice of all blocks, which XLA copies: a second copy of the model's
    parameters. So `whole` is read where no gradient is taken, and `own`, such a slice's row, where
    one is: the gradient by `whole` would be a sum of arrays of its size, one for each block.
    """
    del own
    return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, number, keepdims=False), whole)


@_row.defjvp
def _row_by_own(primals, tangents):
    return primals[0], tangents[0]

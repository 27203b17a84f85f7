"""Equal blocks over tokens, run by ranges: what classifiers and dense models have in common."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.layers.drop_path import drop_path
from ssmjax.models.config import BackboneConfig
from ssmjax.models.run import Run
from ssmjax.pruning.strategies.strategy import Strategy
from ssmjax.pruning.stream import Stream


class Trunk(nnx.Module):
    """The blocks of a model.

    The parameters of all blocks are stacked along a leading axis, so that the blocks between two
    pruning stages are one `lax.scan` and compile once. A family gives its config,
    `blocks`, each a `ssmjax.models.block.Block`, and the methods below.

    Tokens are pruned after a block, or inside it where the family says `prunes_inside`: its blocks
    are then each a `HalvedBlock`.
    """

    prunes_inside: ClassVar[bool] = False

    config: BackboneConfig
    blocks: nnx.Module

    def after_block(self, number: int, stream: Stream, layout: Any, *, train: bool) -> Stream:
        """What follows block `number` (1-based) alone, for those in `breaks`.

        `train` is that of `ssmjax.layers.norm.BatchNorm`.
        """
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
        needs = strategy.needs if strategy else None
        alignment = self.config.prune.alignment if self.config.prune else "none"
        options = {"alignment": alignment, "implementation": run.implementation}
        graphdef, stacked = self._stacked(run)

        def step(stream, inputs, tells=False):
            block, drop = _open(graphdef, inputs)
            call = block.first_half if tells and self.prunes_inside else block
            stream, signals, traced = call(stream, layout, drop, **options)
            return stream, (signals if tells else None, traced if run.trace else None)

        # The block that tells is run apart: in a loop, all would hand their signals on.
        apart = last - 1 if strategy else last
        inside = (number for number in self.breaks if first < number <= last)
        signal, traces = None, []
        for start, stop in itertools.pairwise(sorted({first, apart, last, *inside})):
            inputs = jax.tree.map(lambda a: a[start:stop], stacked)  # noqa: B023
            scanned = _remat(partial(step, tells=start == apart), run.remat)
            stream, (signals, traced) = lax.scan(scanned, stream, inputs)
            traces.append(traced)
            if start == apart and needs:
                signal = getattr(signals, needs)[0]
            if stop in self.breaks:
                stream = self.after_block(stop, stream, layout, train=run.train)
        return stream, signal, traces

    def finish_block(self, number: int, stream: Stream, run: Run) -> Stream:
        """What is left of block `number` (1-based) once its tokens are pruned."""
        if not self.prunes_inside:
            return stream
        graphdef, stacked = self._stacked(run)

        def step(stream, inputs):
            block, drop = _open(graphdef, inputs)
            return block.second_half(stream, drop)

        return _remat(step, run.remat)(stream, jax.tree.map(lambda a: a[number - 1], stacked))

    def _stacked(self, run):
        """The graph of a block, and along a leading axis: parameters, drop path's rate and key."""
        config = self.config
        graphdef, params = nnx.split(self.blocks)
        keep = 1 - np.linspace(0, config.drop_path_rate, config.depth, dtype=np.float32)
        keys = jax.random.split(run.drop_key, config.depth) if self.drops(run) else None
        return graphdef, (params, keep, keys)


def _remat(step, remat):
    """`step`, of which a gradient keeps the inputs alone where `remat`."""
    return jax.checkpoint(step) if remat else step


def _open(graphdef, inputs):
    """One block of `_stacked`, and its drop path."""
    params, keep, key = inputs

    def drop(x, branch=0):
        return x if key is None else drop_path(x, keep, jax.random.fold_in(key, branch))

    return nnx.merge(graphdef, params), drop


def stack(block: Callable[..., nnx.Module], config: BackboneConfig, rngs: nnx.Rngs) -> nnx.Module:
    """All blocks of a model as one, their parameters stacked along a leading axis."""
    return nnx.vmap(lambda rngs: block(config, rngs=rngs))(rngs.split(config.depth))

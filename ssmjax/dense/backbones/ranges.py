"""Models over maps: their blocks run by ranges, pruned between, restored to the grid after."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.conv import Cells
from ssmjax.layers.mixer import Paths
from ssmjax.models.config import SSMConfig
from ssmjax.models.plain_mamba import PlainMambaConfig, PlainMambaTrunk, cells_of, lay_out
from ssmjax.models.run import Run
from ssmjax.models.trunk import Trunk
from ssmjax.pruning.config import CONV, PruneConfig, whole_number
from ssmjax.pruning.geometry import Geometry
from ssmjax.pruning.reduce import Present, reduce_tokens
from ssmjax.pruning.select import gather_tokens
from ssmjax.pruning.strategies.strategy import Strategy
from ssmjax.pruning.stream import Stream

Sizes = TypeVar("Sizes", bound=SSMConfig)


@dataclasses.dataclass(frozen=True)
class DensePruneConfig(PruneConfig):
    """Pruning of a model that gives maps: cells whose token is pruned keep its features.

    Attributes:
      after_blocks: as in `PruneConfig`; by the first blocks of ranges, such as (7, 13, 19), what
        the side branch has added at the beginning of a range is judged.
      conv: in convolutions a cell whose token is pruned shows the features it keeps (`frozen`), or
        the nearest kept token (`compact`), or zero (`aligned`).

    Raises:
      ValueError: as `PruneConfig` does, and for a reduction that is not `drop`.
    """

    conv: str = "frozen"

    convs: ClassVar[tuple[str, ...]] = ("frozen", *CONV)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction != "drop":
            raise ValueError(
                f"reduction is {self.reduction!r}; where pruned tokens come back as cells of a "
                "map it must be 'drop'."
            )


@dataclasses.dataclass(frozen=True)
class RangesConfig(Generic[Sizes]):
    """A model whose blocks run in ranges.

    Attributes:
      trunk: its sizes. `img_size` is that of the images its position embeddings are for: they
        are resized for others. `num_classes` means nothing here.
      ends: 1-based last block of each range, the last being that of the model.
      prune: where and how to prune, or None for the dense model.

    Raises:
      ValueError: naming the field and its valid choices.
    """

    trunk: Sizes
    ends: tuple[int, ...]
    prune: DensePruneConfig | None = None

    def __post_init__(self) -> None:
        depth = self.trunk.depth
        ends = [whole_number(end) for end in self.ends]
        numbers = [end for end in ends if end is not None and end >= 1]
        if not ends or ends != sorted(set(numbers)) or ends[-1] != depth:
            raise ValueError(
                f"ends is {self.ends!r}; give increasing 1-based block numbers, the last "
                f"{depth}, which is the model's last block."
            )
        object.__setattr__(self, "ends", tuple(numbers))
        if self.trunk.prune is not None:
            raise ValueError("trunk.prune prunes classifiers; give prune beside trunk.")
        self.pruned_trunk()  # Refuses what its blocks cannot do.

    def pruned_trunk(self) -> Sizes:
        """The trunk's sizes with `prune` among them."""
        return dataclasses.replace(self.trunk, prune=self.prune)


class CellTokens(NamedTuple):
    """The tokens of a grid, some of them pruned.

    Attributes:
      stream: what blocks work on, each [B,N,D] in raster order; what is pruned stays as it was.
      geometry: the grid whose cells they are, and its padding: cells wholly beyond their own image.
      kept: [B,K] int32, increasing cells whose tokens blocks work on; None: all.
    """

    stream: Stream
    geometry: Geometry
    kept: jax.Array | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self.geometry.grid

    @property
    def values(self) -> jax.Array:
        """[B,N,D], the residual: all of a token, where blocks add their own."""
        return self.stream.residual

    @property
    def positions(self) -> jax.Array:
        """[B,K] int32, increasing cells whose tokens blocks work on."""
        return self.geometry.everywhere(len(self.values)) if self.kept is None else self.kept

    @property
    def present(self) -> Stream:
        """Each [B,K,D], those that blocks work on."""
        kept = self.kept
        if kept is None:
            return self.stream
        return jax.tree.map(lambda part: gather_tokens(part, kept), self.stream)

    def restored(self, present: Stream) -> "CellTokens":
        """With those that blocks work on replaced, in their cells."""
        if self.kept is None:
            return self._replace(stream=present)
        put = jax.vmap(lambda values, kept, new: values.at[kept].set(new, unique_indices=True))
        stream = jax.tree.map(lambda old, new: put(old, self.kept, new), self.stream, present)
        return self._replace(stream=stream)

    @property
    def map(self) -> jax.Array:
        """[B,H,W,D]."""
        return self.values.reshape(len(self.values), *self.grid, -1)


class Features(NamedTuple):
    """What the backbone of a dense model makes of images.

    Attributes:
      maps: [B,H,W,D] each, for the heads.
      kept: of each range of blocks, the [B,K] int32 cells whose tokens are left after it, in
        increasing order; None where nothing has been pruned.
      intermediates: what was computed on the way, by name.
    """

    maps: tuple[jax.Array, ...]
    kept: tuple[jax.Array | None, ...]
    intermediates: Mapping[str, Any] = {}


class Ranges(Trunk):
    """The blocks of a model over a grid of tokens, which pruning leaves whole.

    Beside what `Trunk` asks for, a family gives its `ends`, as of `RangesConfig`, and the methods
    that raise NotImplementedError. Its config prunes as `RangesConfig.prune` says.
    """

    config: SSMConfig
    ends: tuple[int, ...]

    def embed(self, images: jax.Array, *, train: bool) -> Stream:
        """What enters the first block, of [B,height,width,channels] of the compute dtype."""
        raise NotImplementedError

    def layout(self, tokens: CellTokens) -> Any:
        """What mixers need to know of where the tokens present lie."""
        raise NotImplementedError

    def begin(self, images: jax.Array, run: Run) -> CellTokens:
        """The tokens before the first block.

        Args:
          images: [B,height,width,channels], of any size.
          run: how, and what of the images is padding.

        Raises:
          ValueError: images of another shape.
        """
        channels = self.config.in_channels
        if images.ndim != 4 or images.shape[-1] != channels or 0 in images.shape:
            raise ValueError(
                f"images has shape {images.shape}; give [batch, height, width, {channels}]."
            )
        grid = self.config.grid_of(*images.shape[1:3])
        stream = self.embed(images.astype(self.config.dtype), train=run.train)
        if run.image_sizes is None:
            return CellTokens(stream, Geometry(grid))
        corner = jnp.indices(grid).reshape(2, 1, -1) * self.config.step
        beyond = (corner >= jnp.asarray(run.image_sizes).T[:, :, None]).any(axis=0)
        return CellTokens(stream, Geometry(grid, padding=beyond))

    def run_range(self, number: int, tokens: CellTokens, run: Run) -> CellTokens:
        """Run the blocks of range `number`, from 0, on what enters it.

        Raises:
          ValueError: a key is needed and missing.
        """
        first, last = (0, *self.ends)[number], self.ends[number]
        prune = self.config.prune

        def through(tokens: CellTokens, stop: int, strategy: Strategy | None = None):
            layout = self.layout(tokens)
            stream, signal, _ = self.run_blocks(tokens.present, layout, first, stop, strategy, run)
            return tokens.restored(stream), signal

        for stage, block in enumerate(prune.after_blocks if prune else ()):
            present = tokens.positions.shape[1]
            if not (prune and first < block <= last and prune.count(present) < present):
                continue
            tokens, signal = through(tokens, block, prune.strategy)
            left = reduce_tokens(
                prune,
                Present(tokens.present, tokens.positions, None),
                prune.count(present),
                tokens.geometry,
                signal=signal,
                key=run.choice_key(stage),
            )
            tokens, first = tokens._replace(kept=left.positions), block
        return through(tokens, last)[0] if first < last else tokens


class PlainMambaRanges(PlainMambaTrunk, Ranges):
    """PlainMamba over a grid; its stream is one array, in float32 (or wider)."""

    def __init__(self, config: RangesConfig[PlainMambaConfig], *, rngs: nnx.Rngs):
        super().__init__(config.pruned_trunk(), rngs=rngs)
        self.ends = config.ends

    def embed(self, images: jax.Array, *, train: bool) -> Stream:
        return Stream(self.tokens(images, train=train))

    def layout(self, tokens: CellTokens) -> Paths:
        B, N, _ = tokens.values.shape
        kept, conv = tokens.kept, self.config.prune.conv if self.config.prune else "compact"
        if kept is None or conv != "frozen":
            return lay_out(tokens.grid, B, kept, cells_of(tokens.grid, kept, conv))
        is_kept = jax.vmap(lambda kept: jnp.zeros(N, bool).at[kept].set(True))(kept)
        pruned = jnp.argsort(is_kept, axis=1, stable=True)[:, : N - kept.shape[1]]
        # Where each cell's token stands among the kept ones and then the pruned ones.
        source = jnp.argsort(jnp.concatenate([kept, pruned], axis=1), axis=1)
        paths = lay_out(tokens.grid, B, kept, Cells(tokens.grid, kept, source))
        return paths._replace(frozen=gather_tokens(tokens.values, pruned))

"""Models over maps: their blocks run by ranges, pruned between, restored to the grid after."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.conv import Cells
from ssmjax.layers.mixer import Paths
from ssmjax.models.config import SSMConfig
from ssmjax.models.plain_mamba import PlainMambaConfig, PlainMambaTrunk, cells_of, lay_out
from ssmjax.models.trunk import Run, Trunk
from ssmjax.pruning.config import CONV, PruneConfig, whole_number
from ssmjax.pruning.reduce import Present, Stream, reduce_tokens
from ssmjax.pruning.select import gather_tokens

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
      backbone: its sizes. `img_size` is that of the images its position embeddings are for: they
        are resized for others. `num_classes` means nothing here.
      ends: 1-based last block of each range, the last being that of the model.
      prune: where and how to prune, or None for the dense model.

    Raises:
      ValueError: naming the field and its valid choices.
    """

    backbone: Sizes
    ends: tuple[int, ...]
    prune: DensePruneConfig | None = None

    def __post_init__(self) -> None:
        depth = self.backbone.depth
        ends = [whole_number(end) for end in self.ends]
        numbers = [end for end in ends if end is not None and end >= 1]
        if not ends or ends != sorted(set(numbers)) or ends[-1] != depth:
            raise ValueError(
                f"ends is {self.ends!r}; give increasing 1-based block numbers, the last "
                f"{depth}, which is the model's last block."
            )
        object.__setattr__(self, "ends", tuple(numbers))
        if self.backbone.prune is not None:
            raise ValueError("backbone.prune prunes classifiers; give prune beside backbone.")
        dataclasses.replace(self.backbone, prune=self.prune)  # Refuses what its blocks cannot do.


class CellTokens(NamedTuple):
    """The tokens of a grid, some of them pruned.

    Attributes:
      stream: what blocks work on, each [B,N,D] in raster order; what is pruned stays as it was.
      grid: (H, W), whose cells they are.
      kept: [B,K] int32, increasing cells whose tokens blocks work on; None: all.
      padding: [B,N] bool, the cells wholly beyond their own image; None: there are none.
    """

    stream: Stream
    grid: tuple[int, int]
    kept: jax.Array | None = None
    padding: jax.Array | None = None

    @property
    def values(self) -> jax.Array:
        """[B,N,D], the first of the stream: all of it, for most."""
        return self.stream[0]

    @property
    def present(self) -> Stream:
        """Each [B,K,D], those that blocks work on."""
        if self.kept is None:
            return self.stream
        return tuple(gather_tokens(part, self.kept) for part in self.stream)

    def restored(self, present: Stream) -> "CellTokens":
        """With those that blocks work on replaced, in their cells."""
        if self.kept is None:
            return self._replace(stream=present)
        put = jax.vmap(lambda values, kept, new: values.at[kept].set(new, unique_indices=True))
        pairs = zip(self.stream, present, strict=True)
        return self._replace(stream=tuple(put(old, self.kept, new) for old, new in pairs))

    @property
    def map(self) -> jax.Array:
        """[B,H,W,D]."""
        return self.values.reshape(len(self.values), *self.grid, -1)


class Ranges(Trunk):
    """The blocks of a model over a grid of tokens, which pruning leaves whole.

    Beside what `Trunk` asks for, a family gives its `ends` and `prune`, as of `RangesConfig`, and
    the methods that raise NotImplementedError.
    """

    config: SSMConfig
    ends: tuple[int, ...]
    prune: DensePruneConfig | None

    def embed(self, images: jax.Array, *, train: bool) -> Stream:
        """What enters the first block, of [B,height,width,channels] of the compute dtype.

        `train` is that of `ssmjax.layers.norm.BatchNorm`.
        """
        raise NotImplementedError

    def layout(self, tokens: CellTokens) -> Any:
        """What mixers need to know of where the tokens present lie."""
        raise NotImplementedError

    def judged(self, stream: Stream) -> Stream:
        """The part of a stream whose sum is what tokens are, for strategies that look at it."""
        return stream

    def run(
        self, key: jax.Array | None, train: bool, implementation: str | None, remat: bool
    ) -> Run:
        """How blocks are run; see the arguments of `ssmjax.dense.features.PlainMambaFeatures`.

        Raises:
          ValueError: a key is needed and missing.
        """
        drops = train and self.config.drop_path_rate > 0
        if drops and key is None:
            raise ValueError("drop path needs a key: model(images, train=True, key=...).")
        return Run(
            key if drops else None,
            self.prune.alignment if self.prune else "none",
            implementation,
            remat,
            batch_statistics=train,
        )

    def begin(
        self, images: jax.Array, image_sizes: jax.Array | None = None, *, train: bool = False
    ) -> CellTokens:
        """The tokens before the first block.

        Args:
          images: [B,height,width,channels], of any size.
          image_sizes: [B,2] (height, width) in pixels of each image without its padding at the
            bottom and the right, so that pruning drops the padding first; None: there is none.
          train: that of `ssmjax.layers.norm.BatchNorm`.

        Raises:
          ValueError: images of another shape.
        """
        channels = self.config.in_channels
        if images.ndim != 4 or images.shape[-1] != channels or 0 in images.shape:
            raise ValueError(
                f"images has shape {images.shape}; give [batch, height, width, {channels}]."
            )
        grid = self.config.grid_of(*images.shape[1:3])
        stream = self.embed(images.astype(self.config.dtype), train=train)
        if image_sizes is None:
            return CellTokens(stream, grid)
        corner = jnp.indices(grid).reshape(2, 1, -1) * self.config.step
        beyond = (corner >= jnp.asarray(image_sizes).T[:, :, None]).any(axis=0)
        return CellTokens(stream, grid, padding=beyond)

    def run_range(
        self, number: int, tokens: CellTokens, run: Run, key: jax.Array | None = None
    ) -> CellTokens:
        """Run the blocks of range `number`, from 0.

        Args:
          number: which range; 0 is the first.
          tokens: what enters it.
          run: how.
          key: random key for `importance="random"`.
        """
        first, last = (0, *self.ends)[number], self.ends[number]
        for stage, block, left in self._stages(first, last, tokens.present[0].shape[1]):
            tokens, signal = self._run(tokens, first, block, run, tells=True)
            stage_key = None if key is None else jax.random.fold_in(key, stage)
            tokens, first = self._pruned(tokens, left, signal, stage_key), block
        return tokens if first == last else self._run(tokens, first, last, run)[0]

    def _stages(self, first: int, last: int, present: int) -> Iterator[tuple[int, int, int]]:
        """(stage, block after which it prunes, tokens left) of those that drop any."""
        for stage, block in enumerate(self.prune.after_blocks if self.prune else ()):
            if self.prune and first < block <= last and self.prune.count(present) < present:
                present = self.prune.count(present)
                yield stage, block, present

    def _run(self, tokens, first, last, run, *, tells=False):
        """Tokens after some blocks, and what a strategy needs of the last, if that tells."""
        strategy = self.prune.strategy if tells and self.prune else None
        stream, signal, _ = self.run_blocks(
            tokens.present, self.layout(tokens), first, last, strategy, run
        )
        return tokens.restored(stream), signal

    def _pruned(self, tokens, left, signal, key):
        """`left` tokens are kept."""
        B, N, _ = tokens.values.shape
        kept = tokens.kept
        if kept is None:
            kept = jnp.broadcast_to(jnp.arange(N, dtype=jnp.int32), (B, N))
        present = reduce_tokens(
            self.prune,  # pyright: ignore[reportArgumentType]
            Present(self.judged(tokens.present), kept, None),
            left,
            fused_position=N,
            signal=signal,
            class_index=None,
            grid=tokens.grid,
            key=key,
            padding=tokens.padding,
        )
        return tokens._replace(kept=present.positions)


class PlainMambaRanges(PlainMambaTrunk, Ranges):
    """PlainMamba over a grid; its stream is one array, in float32 (or wider)."""

    def __init__(self, config: RangesConfig[PlainMambaConfig], *, rngs: nnx.Rngs):
        super().__init__(config.backbone, rngs=rngs)
        self.ends, self.prune = config.ends, config.prune

    def embed(self, images: jax.Array, *, train: bool) -> Stream:
        return (self.tokens(images, train=train),)

    def layout(self, tokens: CellTokens) -> Paths:
        B, N, _ = tokens.values.shape
        kept, conv = tokens.kept, self.prune.conv if self.prune else "compact"
        if kept is None or conv != "frozen":
            return lay_out(tokens.grid, B, kept, cells_of(tokens.grid, kept, conv))
        is_kept = jax.vmap(lambda kept: jnp.zeros(N, bool).at[kept].set(True))(kept)
        pruned = jnp.argsort(is_kept, axis=1, stable=True)[:, : N - kept.shape[1]]
        # Where each cell's token stands among the kept ones and then the pruned ones.
        source = jnp.argsort(jnp.concatenate([kept, pruned], axis=1), axis=1)
        paths = lay_out(tokens.grid, B, kept, Cells(tokens.grid, kept, source))
        return paths._replace(frozen=gather_tokens(tokens.values, pruned))

"""PlainMamba: Mamba blocks over a grid of tokens, read along four serpentine paths."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.conv import Cells, GridConv
from ssmjax.layers.mixer import PathMixer, Paths
from ssmjax.layers.norm import BatchNorm, layer_norm
from ssmjax.layers.patch_embed import StemPatchEmbed
from ssmjax.layers.pos_embed import resize_inside
from ssmjax.layers.scan_paths import scan_paths
from ssmjax.models.backbone import Backbone, head
from ssmjax.models.config import SSMConfig
from ssmjax.models.trunk import Trunk
from ssmjax.precision import widened
from ssmjax.pruning.config import PruneConfig, whole_number
from ssmjax.pruning.positions import kept_at, nearest_kept
from ssmjax.pruning.stream import Stream

DWCONV_SIZE = 3


@dataclasses.dataclass(frozen=True)
class PlainMambaConfig(SSMConfig):
    """Everything that defines a PlainMamba.

    Attributes:
      stem_convs: 3x3 convolutions in the stem, after its 7x7 one.
      conv_size: side of the mixers' depthwise convolution, odd.
      dwconv_blocks: 0-based blocks that end in a depthwise 3x3 convolution.
      paired_paths: whether delta, B and C follow their token along each path; the official layer,
        and its weights, leave them in raster order.
    """

    stem_convs: int = 2
    conv_size: int = 7
    dwconv_blocks: tuple[int, ...] = ()
    paired_paths: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.dwconv_blocks, list | tuple):
            raise ValueError(f"dwconv_blocks is {self.dwconv_blocks!r}; give a tuple, as (0,).")
        object.__setattr__(self, "dwconv_blocks", tuple(self.dwconv_blocks))
        super().__post_init__()
        for field in ("patch_size", "step"):
            if getattr(self, field) % 2:
                raise ValueError(
                    f"{'stride' if field == 'step' else field} is {getattr(self, field)}; it must "
                    "be even, since the stem halves the image."
                )
        stem_convs, conv_size = whole_number(self.stem_convs), whole_number(self.conv_size)
        if stem_convs is None or stem_convs < 0:
            raise ValueError(f"stem_convs is {self.stem_convs!r}; it must be 0 or more.")
        if conv_size is None or conv_size < 1 or conv_size % 2 == 0:
            raise ValueError(f"conv_size is {self.conv_size!r}; it must be odd, as 7.")
        object.__setattr__(self, "stem_convs", stem_convs)
        object.__setattr__(self, "conv_size", conv_size)
        blocks = self.dwconv_blocks
        if list(blocks) != sorted(set(blocks) & set(range(self.depth))):
            raise ValueError(
                f"dwconv_blocks is {blocks}; give increasing 0-based blocks below {self.depth}."
            )

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) tokens of an image: the last row and column may reach beyond it."""
        halves = (-(-side // 2) for side in (height, width))
        H, W = (-(-half // (self.step // 2)) for half in halves)
        return H, W


PRESETS: Mapping[str, PlainMambaConfig] = {
    "plainmamba_l1": PlainMambaConfig(embed_dim=192, stem_convs=1, dwconv_blocks=(0,)),
    "plainmamba_l2": PlainMambaConfig(embed_dim=384),
    "plainmamba_l3": PlainMambaConfig(embed_dim=448, depth=36),
}

# The schedules of the paper's table 1, with the keep ratios that reproduce its FLOPs.
PAPER: Mapping[str, PruneConfig] = {
    "plainmamba_l1": PruneConfig(after_blocks=(5, 10), keep_ratio=0.8),
    "plainmamba_l2": PruneConfig(after_blocks=(5, 10, 15), keep_ratio=0.82),
    "plainmamba_l3": PruneConfig(after_blocks=(5, 11, 17, 23), keep_ratio=0.75),
}


class Block(nnx.Module):
    """Normalise, mix, add. The stream is float32."""

    def __init__(self, config: PlainMambaConfig, *, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(config.dtype)
        self.norm = layer_norm(config.embed_dim, epsilon=1e-5, rngs=rngs)
        self.mixer = PathMixer(
            config.mixer, config.conv_size, paired=config.paired_paths, rngs=rngs
        )

    def __call__(self, stream, layout, drop, *, alignment, implementation):
        """See `ssmjax.models.block.Block`."""
        x = stream.residual
        normed = self.norm(layout.with_frozen(x)).astype(self.dtype)
        hidden, signals = self.mixer(
            normed, layout, alignment=alignment, implementation=implementation
        )
        return Stream(x + drop(hidden).astype(x.dtype)), signals, Stream(x, hidden)


class DepthwiseBlock(nnx.Module):
    """Depthwise 3x3 convolution, batch normalisation, GELU: replaces its input, adds nothing."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.conv = GridConv(features, DWCONV_SIZE, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(features)

    def __call__(self, x: jax.Array, cells: Cells, *, train: bool) -> jax.Array:
        return jax.nn.gelu(self.norm(self.conv(x, cells), train=train), approximate=False)


def lay_out(grid: tuple[int, int], batch: int, positions: jax.Array | None, cells: Cells) -> Paths:
    """How tokens at `positions` [batch,K] lie along the paths of a grid; None: all are there."""
    order, direction = (jnp.asarray(a) for a in scan_paths(*grid))
    if positions is None:
        shape = (order.shape[0], batch, order.shape[1])
        paths = (jnp.broadcast_to(a[:, None], shape) for a in (order, direction))
        return Paths(*paths, steps=None, cells=cells)
    step_of = jnp.argsort(order, axis=1).astype(jnp.int32)[:, positions]
    kept_order = jnp.argsort(step_of, axis=2).astype(jnp.int32)
    steps = jnp.take_along_axis(step_of, kept_order, axis=2)
    return Paths(
        order=kept_order,
        direction=jax.vmap(lambda codes, steps: codes[steps])(direction, steps),
        steps=steps,
        cells=cells,
    )


def cells_of(grid: tuple[int, int], positions: jax.Array | None, conv: str) -> Cells:
    """What convolutions see of tokens at `positions` [B,K], under `PruneConfig.conv`."""
    if positions is None:
        return Cells(grid)
    if conv == "aligned":
        return Cells(grid, positions, *kept_at(positions, grid[0] * grid[1]))
    return Cells(grid, positions, nearest_kept(positions, grid))


class PlainMambaTrunk(Trunk):
    """PlainMamba from images to tokens and through its blocks, at any size of images."""

    block = Block

    config: PlainMambaConfig

    def __init__(self, config: PlainMambaConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.dwconvs = nnx.List(
            [DepthwiseBlock(config.embed_dim, rngs=rngs) for _ in config.dwconv_blocks]
        )

    @staticmethod
    def patches(config: PlainMambaConfig, *, rngs: nnx.Rngs) -> StemPatchEmbed:
        return StemPatchEmbed(
            config.in_channels,
            config.embed_dim,
            config.patch_size,
            config.step,
            config.stem_convs,
            dtype=jnp.dtype(config.dtype),
            rngs=rngs,
        )

    def tokens(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Patches plus position embeddings, resized where the images have another grid.

        [B,height,width,channels] of the compute dtype become [B,N,D] in float32 (or wider), in
        raster order of `config.grid_of(height, width)`.
        """
        patches = self.patch_embed(images, train=train)
        grid = self.config.grid_of(*images.shape[1:3])
        return widened(patches) + resize_inside(self.pos_embed[...], self.config.grid, grid)

    @property
    def breaks(self) -> tuple[int, ...]:
        return tuple(block + 1 for block in self.config.dwconv_blocks)

    def after_block(self, number: int, stream: Stream, layout: Paths, *, train: bool) -> Stream:
        dwconv = self.dwconvs[self.breaks.index(number)]
        x = layout.with_frozen(stream.residual).astype(self.config.dtype)
        return Stream(dwconv(x, layout.cells, train=train).astype(stream.residual.dtype))


class PlainMamba(PlainMambaTrunk, Backbone):
    """PlainMamba (arXiv 2403.17695) with token pruning (arXiv 2409.18962)."""

    def __init__(self, config: PlainMambaConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        # As the official classifiers; its detectors and segmentors synchronise them.
        self.set_attributes(BatchNorm, synchronised=False)
        self.norm = layer_norm(config.embed_dim, rngs=rngs)
        self.head = head(config, rngs=rngs)

    def embed(self, images: jax.Array, *, train: bool = False) -> Stream:
        return Stream(self.tokens(images, train=train))

    def layout(self, batch: int, positions: jax.Array | None) -> Paths:
        conv = self.config.prune.conv if self.config.prune else "compact"
        grid = self.config.grid
        return lay_out(grid, batch, positions, cells_of(grid, positions, conv))

    def finish(self, stream, positions, sizes):
        """The mean over the tokens left, or over the patches they stand for."""
        x = stream.residual
        if sizes is None:
            return self.norm(x).mean(axis=1), x
        shares = sizes / sizes.sum(axis=1, keepdims=True)
        return (self.norm(x) * shares[..., None]).sum(axis=1), x

"""Maps of PlainMamba for semantic segmentation: after each range of blocks, all of one stride."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from ssmjax.dense.ranges import PlainMambaRanges, RangesConfig
from ssmjax.models.plain_mamba import PlainMambaConfig, final_norm


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


class PlainMambaFeatures(nnx.Module):
    """A PlainMamba that gives what each range of blocks ends with, normalised."""

    def __init__(self, config: RangesConfig[PlainMambaConfig], *, rngs: nnx.Rngs):
        self.config = config
        self.trunk = PlainMambaRanges(config, rngs=rngs)
        self.norms = nnx.List(
            [final_norm(config.backbone.embed_dim, rngs=rngs) for _ in config.ends]
        )

    def __call__(
        self,
        images: jax.Array,
        *,
        image_sizes: jax.Array | None = None,
        train: bool = False,
        key: jax.Array | None = None,
        implementation: str | None = None,
        remat: bool = False,
    ) -> Features:
        """Maps of images; to be called under `jit`.

        Args:
          images: [B,height,width,channels], normalised as the weights expect, of any size.
          image_sizes: [B,2] (height, width) in pixels of each image without its padding at the
            bottom and the right, so that pruning drops the padding first; None: there is none.
          train: whether drop path acts and batch norms train; these then change in place.
          key: random key for drop path (with `train`) and `importance="random"`.
          implementation: of the scan; see `kernels.selective_scan`.
          remat: whether a gradient recomputes the insides of each block, to need less memory.

        Returns:
          As many maps [B,H,W,D] in float32 (or wider) as there are ranges of blocks, (H, W) being
          `config.backbone.grid_of(height, width)`; and the cells kept.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        path_key, prune_key = (None, None) if key is None else jax.random.split(key)
        run = self.trunk.run(path_key, train, implementation, remat)
        tokens = self.trunk.begin(images, image_sizes, train=train)
        maps, kept = [], []
        for number, norm in enumerate(self.norms):
            tokens = self.trunk.run_range(number, tokens, run, prune_key)
            maps.append(norm(tokens.map))
            kept.append(tokens.kept)
        return Features(tuple(maps), tuple(kept))

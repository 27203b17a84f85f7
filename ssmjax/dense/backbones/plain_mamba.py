"""Maps of PlainMamba for semantic segmentation: after each range of blocks, all of one stride."""

import jax
from flax import nnx

from ssmjax.dense.backbones.ranges import Features, PlainMambaRanges, RangesConfig
from ssmjax.layers.norm import layer_norm
from ssmjax.models.plain_mamba import PlainMambaConfig
from ssmjax.models.run import Run


class PlainMambaFeatures(nnx.Module):
    """A PlainMamba that gives what each range of blocks ends with, normalised."""

    def __init__(self, config: RangesConfig[PlainMambaConfig], *, rngs: nnx.Rngs):
        self.config = config
        self.trunk = PlainMambaRanges(config, rngs=rngs)
        self.norms = nnx.List([layer_norm(config.trunk.embed_dim, rngs=rngs) for _ in config.ends])

    def __call__(self, images: jax.Array, run: Run) -> Features:
        """Maps of images; to be called under `jit`.

        Args:
          images: [B,height,width,channels], normalised as the weights expect, of any size.
          run: how.

        Returns:
          As many maps [B,H,W,D] in float32 (or wider) as there are ranges of blocks, (H, W) being
          `config.trunk.grid_of(height, width)`; and the cells kept.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        tokens = self.trunk.begin(images, run)
        maps, kept = [], []
        for number, norm in enumerate(self.norms):
            tokens = self.trunk.run_range(number, tokens, run)
            maps.append(norm(tokens.map))
            kept.append(tokens.kept)
        return Features(tuple(maps), tuple(kept))

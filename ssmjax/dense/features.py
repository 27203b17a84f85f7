"""Maps of PlainMamba for semantic segmentation: after each range of blocks, all of one stride."""

import jax
from flax import nnx

from ssmjax.dense.ranges import PlainMambaRanges, RangesConfig
from ssmjax.models.plain_mamba import PlainMambaConfig, final_norm
from ssmjax.models.run import Run


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
    ) -> tuple[jax.Array, ...]:
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
          As many maps [B,H,W,D] in float32 (or wider) as there are ranges, (H, W) being
          `config.backbone.grid_of(height, width)`.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        run = Run(key, image_sizes, train=train, implementation=implementation, remat=remat)
        tokens = self.trunk.begin(images, run)
        maps = []
        for number, norm in enumerate(self.norms):
            tokens = self.trunk.run_range(number, tokens, run)
            maps.append(norm(tokens.map))
        return tuple(maps)

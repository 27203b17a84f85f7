"""What detectors have in common: a backbone, and heads on its maps that learn and find objects."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Integer, Num

from kernels.array_types import Array
from ssmjax.dense.backbones.adapter import PlainMambaAdapter
from ssmjax.dense.heads.losses import Term, means
from ssmjax.dense.heads.objects import Detections, Targets
from ssmjax.models.run import Run


class Detector(nnx.Module):
    """A detector; each kind gives its `backbone` and `look`, `terms` and `find`."""

    backbone: PlainMambaAdapter

    def look(self, maps: tuple[jax.Array, ...], *, train: bool) -> Any:
        """What `terms` and `find` work on, of the maps of the backbone.

        `train` is that of `ssmjax.layers.norm.BatchNorm`.
        """
        raise NotImplementedError

    def terms(self, seen: Any, targets: Targets, *, train: bool) -> dict[str, Term]:
        """The losses by name, of what `look` gave; `train` is as in `look`."""
        raise NotImplementedError

    def find(self, seen: Any, image_shapes: jax.Array, **options: Any) -> Detections:
        """The objects in images whose sides are `image_shapes` [B,2], of what `look` gave."""
        raise NotImplementedError

    def __call__(
        self,
        images: jax.Array,
        *,
        image_shapes: jax.Array | None = None,
        train: bool = False,
        key: jax.Array | None = None,
        implementation: str | None = None,
        remat: bool = False,
    ) -> Any:
        """What `look` makes of images; to be called under `jit`.

        Args:
          images: [B,height,width,channels], both sides multiples of 32, zero in the padding.
          image_shapes: [B,2] (height, width) of each image without its padding at the bottom and
            the right, so that pruning drops the padding first; None: there is none.
          train: whether drop path acts and batch norms train; these then change in place.
          key: random key for drop path (with `train`) and `importance="random"`.
          implementation: of the scan; see `kernels.selective_scan`.
          remat: whether a gradient recomputes the insides of each block, to need less memory.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        run = Run(key, image_shapes, train, implementation, remat)
        return self._seen(images, run)[0]

    def losses(self, images: jax.Array, targets: Targets, **options: Any) -> dict[str, jax.Array]:
        """What training minimises the sum of: the means of `loss_terms`, of the same arguments."""
        return means(self.loss_terms(images, targets, **options))

    def loss_terms(
        self, images: jax.Array, targets: Targets, *, train: bool = True, **options: Any
    ) -> dict[str, Term]:
        """What training minimises the sum of the means of; to be called under `jit`.

        Args:
          images: [B,height,width,channels], both sides multiples of 32, zero in the padding.
          targets: their objects.
          train: whether drop path acts and batch norms train; these then change in place.
          **options: `key`, `implementation` and `remat`, as in `__call__`.

        Returns:
          The losses by name; their means are float32 scalars.

        Raises:
          ValueError: images of another shape, or a key or the masks are needed and missing.
        """
        seen = self(images, image_shapes=targets.image_shapes, train=train, **options)
        return self.terms(seen, targets, train=train)

    def detect(
        self,
        images: Num[Array, "B height width channels"],
        image_shapes: Integer[Array, "B 2"],
        *,
        key: jax.Array | None = None,
        implementation: str | None = None,
        return_positions: bool = False,
        **options: Any,
    ) -> Any:
        """Find objects; to be called under `jit`.

        Args:
          images: [B,height,width,channels], both sides multiples of 32, zero in the padding.
          image_shapes: [B,2] integers, (height, width) of each image without its padding.
          key: random key for `importance="random"`.
          implementation: of the scan; see `kernels.selective_scan`.
          return_positions: also return `ssmjax.dense.backbones.ranges.Features.kept`.
          **options: those of `find`.

        Returns:
          `Detections`, followed by what was asked for.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        seen, kept = self._seen(images, Run(key, image_shapes, implementation=implementation))
        found = self.find(seen, image_shapes, **options)
        return (found, kept) if return_positions else found

    def _seen(self, images: jax.Array, run: Run) -> tuple[Any, tuple[jax.Array | None, ...]]:
        """What `look` makes of images, and the cells kept."""
        features = self.backbone(images, run)
        return self.look(features.maps, train=run.train), features.kept

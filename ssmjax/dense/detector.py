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
    """A detector, for use under `jit`; each kind gives `backbone`, `look`, `terms` and `find`."""

    backbone: PlainMambaAdapter

    def look(self, maps: tuple[jax.Array, ...], *, train: bool) -> Any:
        """What `terms` and `find` work on, of the maps of the backbone."""
        raise NotImplementedError

    def terms(self, seen: Any, targets: Targets, *, train: bool) -> dict[str, Term]:
        """The losses by name, of what `look` gave."""
        raise NotImplementedError

    def find(self, seen: Any, image_shapes: jax.Array, **options: Any) -> Detections:
        """The objects in images whose sides are `image_shapes` [B,2], of what `look` gave."""
        raise NotImplementedError

    def losses(self, images: jax.Array, targets: Targets, **options: Any) -> dict[str, jax.Array]:
        """What training minimises the sum of: the means of `loss_terms`, of the same arguments."""
        return means(self.loss_terms(images, targets, **options))

    def loss_terms(
        self, images: jax.Array, targets: Targets, *, train: bool = True, **options: Any
    ) -> dict[str, Term]:
        """What training minimises the sum of the means of.

        Args:
          images: [B,height,width,channels], both sides multiples of 32, zero in the padding.
          targets: their objects.
          train: whether drop path acts and batch norms train; these then change in place.
          **options: `key`, `implementation` and `remat` of `ssmjax.models.run.Run`.

        Returns:
          The losses by name; their means are float32 scalars.

        Raises:
          ValueError: images of another shape, or a key or the masks are needed and missing.
        """
        seen, _ = self._seen(images, Run(image_sizes=targets.image_shapes, train=train, **options))
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
        """Find objects.

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

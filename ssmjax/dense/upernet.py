"""UperNet (Xiao et al. 2018, arXiv 1807.10221): a class for each pixel."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.dense.backbones.plain_mamba import PlainMambaFeatures
from ssmjax.dense.backbones.ranges import Features
from ssmjax.dense.backbones.vim import VimFeatures, VimFeaturesConfig
from ssmjax.dense.config import UperNetConfig
from ssmjax.dense.geometry.resize import adaptive_average_pool, resize
from ssmjax.dense.heads import losses
from ssmjax.dense.heads.losses import Term
from ssmjax.layers.conv_bias import convolution, fan_out_normal
from ssmjax.layers.conv_norm import ConvNorm
from ssmjax.models.run import Run
from ssmjax.precision import wide_dtype, widened

POOLS = (1, 2, 3, 6)
AUXILIARY_WEIGHT = 0.4


class UperHead(nnx.Module):
    """Pyramid pooling of the last map, merged with those before it."""

    def __init__(self, in_features: int, inputs: int, config: UperNetConfig, *, rngs: nnx.Rngs):
        width, D = config.width, in_features
        unit = partial(_unit, config=config, rngs=rngs)
        self.pools = nnx.List([unit(D, width, 1) for _ in POOLS])
        self.bottleneck = unit(D + len(POOLS) * width, width, 3)
        self.laterals = nnx.List([unit(D, width, 1) for _ in range(inputs - 1)])
        self.outputs = nnx.List([unit(width, width, 3) for _ in range(inputs - 1)])
        self.merge = unit(inputs * width, width, 3)
        self.classes = _classifier(width, config, rngs=rngs)

    def __call__(self, maps: Sequence[jax.Array], *, train: bool = False) -> jax.Array:
        """Maps [B,H,W,D] of the compute dtype, of any sides, to [B,H,W,width], for `classes`.

        (H, W) are the sides of the first map.
        """
        merged = [
            lateral(x, train=train) for lateral, x in zip(self.laterals, maps[:-1], strict=True)
        ]
        merged.append(self.pyramid(maps[-1], train=train))
        for level in reversed(range(len(merged) - 1)):
            merged[level] = merged[level] + _like(merged[level + 1], merged[level])
        outputs = [
            output(x, train=train) for output, x in zip(self.outputs, merged[:-1], strict=True)
        ]
        outputs = [_like(x, merged[0]) for x in (*outputs, merged[-1])]
        return self.merge(jnp.concatenate(outputs, axis=-1), train=train)

    def pyramid(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B,H,W,D] to [B,H,W,width]: the map and its means over parts of several sizes."""
        means = [
            _like(unit(adaptive_average_pool(x, bins), train=train), x)
            for bins, unit in zip(POOLS, self.pools, strict=True)
        ]
        return self.bottleneck(jnp.concatenate([x, *means], axis=-1), train=train)


class AuxiliaryHead(nnx.Module):
    """Helps training: classes from one map alone."""

    def __init__(self, in_features: int, config: UperNetConfig, *, rngs: nnx.Rngs):
        width, self.map = config.auxiliary_width, config.auxiliary_map
        self.unit = _unit(in_features, width, 3, config=config, rngs=rngs)
        self.classes = _classifier(width, config, rngs=rngs)

    def __call__(self, maps: Sequence[jax.Array], *, train: bool = False) -> jax.Array:
        """Maps [B,H,W,D] of the compute dtype to [B,H,W,auxiliary_width], for `classes`."""
        return self.unit(maps[self.map], train=train)


class UperNet(nnx.Module):
    """A segmentor, to be used under `jit`: on PlainMamba, whose maps have one stride, or on Vim."""

    def __init__(self, config: UperNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        D, inputs = config.backbone.trunk.embed_dim, len(config.backbone.ends)
        if isinstance(config.backbone, VimFeaturesConfig):
            self.backbone = VimFeatures(config.backbone, rngs=rngs)
        else:
            self.backbone = PlainMambaFeatures(config.backbone, rngs=rngs)
        self.head = UperHead(D, inputs, config, rngs=rngs)
        self.auxiliary = AuxiliaryHead(D, config, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,
        *,
        image_shapes: jax.Array | None = None,
        return_positions: bool = False,
        **options: Any,
    ) -> Any:
        """Segment images of any size.

        Args:
          images: [B,height,width,channels].
          image_shapes: `image_sizes` of `ssmjax.models.run.Run`.
          return_positions: also return `ssmjax.dense.backbones.ranges.Features.kept`.
          **options: `key` and `implementation` of `Run`.

        Returns:
          Logits [B,height,width,num_classes] in float32 (or wider), followed by what was asked for.
          `ssmjax.dense.geometry.resize.resize` brings logits to an image's original size.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        features = self.backbone(images, Run(image_sizes=image_shapes, **options))
        logits = classify(self.head, self._seen(features))
        logits = resize(logits, (images.shape[1], images.shape[2]))
        return (logits, features.kept) if return_positions else logits

    def slide(
        self,
        images: jax.Array,
        window: tuple[int, int],
        stride: tuple[int, int],
        **options: Any,
    ) -> jax.Array:
        """Segment large images through windows.

        Args:
          images: [B,height,width,channels].
          window: (height, width) of a window; an image's side where that is less.
          stride: (rows, columns) from window to window; the last ones are moved inward.
          **options: `key`, the same for all windows, and `implementation` of `Run`.

        Returns:
          Logits [B,height,width,num_classes] in float32 (or wider), means over the windows that a
          pixel is in.
        """
        sides = images.shape[1:3]
        window = min(window[0], sides[0]), min(window[1], sides[1])
        rows, columns = (
            np.minimum(np.arange(0, side - size + step, step), side - size)
            for side, size, step in zip(sides, window, stride, strict=True)
        )
        corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)

        def look(total, corner):
            at = (0, corner[0], corner[1], 0)
            part = lax.dynamic_slice(images, at, (len(images), *window, images.shape[3]))
            logits = self(part, **options)
            before = lax.dynamic_slice(total, at, logits.shape)
            return lax.dynamic_update_slice(total, before + logits, at), None

        count = np.zeros((*sides, 1), np.float32)
        for y, x in corners:
            count[y : y + window[0], x : x + window[1]] += 1
        wide = wide_dtype(self.config.backbone.trunk.dtype)
        total = jnp.zeros((len(images), *sides, self.config.num_classes), wide)
        return lax.scan(look, total, jnp.asarray(corners))[0] / count

    def losses(self, images: jax.Array, labels: jax.Array, **options: Any) -> dict[str, jax.Array]:
        """What training minimises the sum of: the means of `loss_terms`, of the same arguments."""
        return losses.means(self.loss_terms(images, labels, **options))

    def loss_terms(
        self,
        images: jax.Array,
        labels: jax.Array,
        *,
        image_shapes: jax.Array | None = None,
        train: bool = True,
        **options: Any,
    ) -> dict[str, Term]:
        """What training minimises the sum of the means of.

        Means are over all pixels of the labels, those without a class included, as in the official
        code.

        Args:
          images: [B,height,width,channels].
          labels: [B,h,w] integers, 255 for none; of any sides, often those of the images.
          image_shapes: `image_sizes` of `ssmjax.models.run.Run`.
          train: whether drop path and dropout act and batch norms train, which then change in
            place.
          **options: `key`, also for dropout, `implementation` and `remat` of `Run`.

        Returns:
          {"decode.loss_ce", "aux.loss_ce": cross entropy of the head, and of the auxiliary one
          times its weight}, of float32 scalars.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        run = Run(image_sizes=image_shapes, train=train, **options)
        drops = train and self.config.dropout > 0
        if drops and run.key is None:
            raise ValueError("dropout needs a key: model.losses(images, labels, key=...).")
        backbone_key, head_key, auxiliary_key = run.split(3)
        maps = self._seen(self.backbone(images, dataclasses.replace(run, key=backbone_key)))

        def of(head, key):
            rate = self.config.dropout if drops else 0.0
            logits = classify(head, maps, train=train, rate=rate, key=key)
            return losses.segmentation(resize(logits, (labels.shape[1], labels.shape[2])), labels)

        auxiliary = of(self.auxiliary, auxiliary_key)
        return {
            "decode.loss_ce": of(self.head, head_key),
            "aux.loss_ce": auxiliary._replace(total=AUXILIARY_WEIGHT * auxiliary.total),
        }

    def _seen(self, features: Features) -> list[jax.Array]:
        """What the heads see: maps of the compute dtype."""
        return [x.astype(self.config.backbone.trunk.dtype) for x in features.maps]


def _like(maps: jax.Array, other: jax.Array) -> jax.Array:
    """`maps` [B,H,W,C], resized to the sides of `other`."""
    return resize(maps, (other.shape[1], other.shape[2]))


def _unit(before: int, after: int, size: int, *, config: UperNetConfig, rngs: nnx.Rngs):
    dtype, init = jnp.dtype(config.backbone.trunk.dtype), fan_out_normal(size, after)
    return ConvNorm(before, after, size, 1, dtype=dtype, rngs=rngs, kernel_init=init)


def _classifier(width: int, config: UperNetConfig, *, rngs: nnx.Rngs) -> nnx.Conv:
    dtype, normal = jnp.dtype(config.backbone.trunk.dtype), nnx.initializers.normal(0.01)
    return convolution(width, config.num_classes, 1, dtype=dtype, rngs=rngs, kernel_init=normal)


def classify(head, maps, *, train=False, rate=0.0, key=None) -> jax.Array:
    """Logits [B,H,W,num_classes] in float32 (or wider), of a head; `rate` of its channels go."""
    dropout = nnx.Dropout(rate, broadcast_dims=(1, 2))
    x = dropout(head(maps, train=train), deterministic=rate == 0, rngs=key)
    return widened(head.classes(x))

"""What the configs of all families share."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from ssmjax.layers.ssm import MixerSizes
from ssmjax.pruning.config import PruneConfig, check_whole, whole_number
from ssmjax.pruning.geometry import Geometry
from ssmjax.pruning.strategies import STRATEGIES

DTYPES = ("float32", "bfloat16", "float64")


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Sizes and options; any field can be overridden in `ssmjax.create_model`.

    Attributes:
      depth: number of blocks.
      embed_dim: D, the width of a token.
      patch_size: pixels of a patch side.
      stride: pixels between patches; None is `patch_size`.
      img_size: pixels, one side or (height, width).
      in_channels: channels of an image.
      num_classes: outputs of the head.
      drop_path_rate: rate of the last block; it rises linearly from 0 at the first.
      dtype: compute dtype; parameters, states, steps, norms and softmax stay in float32 or wider.
      prune: where and how to prune, or None for the dense model.
    """

    depth: int = 24
    embed_dim: int = 192
    patch_size: int = 16
    stride: int | None = None
    img_size: int | tuple[int, int] = 224
    in_channels: int = 3
    num_classes: int = 1000
    drop_path_rate: float = 0.0
    dtype: str = "float32"
    prune: PruneConfig | None = None

    # The fields of `ssmjax.pruning.strategies.strategy.Signals` that the family's blocks give.
    signals: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        size = self.img_size
        size = tuple(size) if isinstance(size, list | tuple) else (size, size)
        size = tuple(whole_number(side) for side in size)
        if len(size) != 2 or None in size:
            raise ValueError(f"img_size is {self.img_size!r}; give pixels, as 224 or (192, 256).")
        object.__setattr__(self, "img_size", size)
        if self.dtype is not None:
            with contextlib.suppress(TypeError):  # What is no dtype is refused below.
                object.__setattr__(self, "dtype", jnp.dtype(self.dtype).name)
        check_whole(self, "depth", "embed_dim", "patch_size", "in_channels", "num_classes")
        if self.stride is not None:
            check_whole(self, "stride")
        if min(self.grid) < 1:
            raise ValueError(
                f"img_size is {size[0]} x {size[1]}; one patch of {self.patch_size} pixels must "
                f"fit, so both sides must be at least {self.patch_size}."
            )
        rate = self.drop_path_rate
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ValueError(f"drop_path_rate is {rate!r}; it must be in [0, 1).")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}.")
        if self.prune is not None and self.prune.strategy.needs not in (None, *self.signals):
            known = [n for n, s in STRATEGIES.items() if s.needs in (None, *self.signals)]
            raise ValueError(
                f"importance is {self.prune.importance!r}, which needs the blocks' "
                f"{self.prune.strategy.needs}; for this model choose one of {', '.join(known)}."
            )
        if self.prune is not None and self.prune.after_blocks[-1] > self.depth:
            raise ValueError(
                f"after_blocks is {self.prune.after_blocks}; the model has {self.depth} blocks, "
                f"so every number must be at most {self.depth}."
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image, in pixels."""
        height, width = (self.img_size,) * 2 if isinstance(self.img_size, int) else self.img_size
        return height, width, self.in_channels

    @property
    def step(self) -> int:
        """Pixels between the starts of neighbouring patches."""
        return self.patch_size if self.stride is None else self.stride

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) patches."""
        return self.grid_of(*self.image_shape[:2])

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) patches of an image, from its sides in pixels: whole ones alone."""
        H, W = ((side - self.patch_size) // self.step + 1 for side in (height, width))
        return H, W

    @staticmethod
    def class_index_among(patches: int) -> int | None:
        """Original position of a class token among so many patches; None without one."""
        return None

    @property
    def class_index(self) -> int | None:
        """Original position of the class token, which is never pruned; None without one."""
        return self.class_index_among(self.grid[0] * self.grid[1])

    @property
    def geometry(self) -> Geometry:
        """Where tokens stand before the first pruning stage."""
        return Geometry(self.grid, self.class_index)

    @property
    def length(self) -> int:
        """L, image tokens and class token."""
        return self.geometry.length

    @property
    def image_tokens(self) -> tuple[int, ...]:
        """Image tokens present at first and after each pruning stage, fused ones included."""
        counts = [self.grid[0] * self.grid[1]]
        if self.prune is not None:
            for _ in self.prune.after_blocks:
                kept = self.prune.count(counts[-1])
                counts.append(kept + (self.prune.reduction == "fuse" and kept < counts[-1]))
        return tuple(counts)

    @property
    def kept_tokens(self) -> tuple[int, ...]:
        """How many of the image tokens present each pruning stage keeps."""
        if self.prune is None:
            return ()
        return tuple(self.prune.count(tokens) for tokens in self.image_tokens[:-1])


@dataclasses.dataclass(frozen=True)
class SSMConfig(BackboneConfig):
    """Of models whose blocks mix tokens by selective scans.

    Attributes:
      d_state: N, states per channel.
      expand: E / D.
    """

    d_state: int = 16
    expand: int = 2

    signals = ("output", "delta")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "d_state", "expand")

    @property
    def channels(self) -> int:
        """E, inner channels."""
        return self.expand * self.embed_dim

    @property
    def rank(self) -> int:
        """R, rank of delta."""
        return -(-self.embed_dim // 16)

    @property
    def mixer(self) -> MixerSizes:
        """The sizes of each block's mixer."""
        return MixerSizes(
            self.embed_dim,
            self.channels,
            self.d_state,
            self.rank,
            self.depth,
            jnp.dtype(self.dtype),
        )


def trunk_config(config: Any) -> BackboneConfig:
    """The sizes of a classifier, or of the trunk of a dense model or of its backbone."""
    if isinstance(config, BackboneConfig):
        return config
    return getattr(config, "backbone", config).trunk


def options(config: Any) -> dict[str, Any]:
    """The options of a config by name, those of the configs of its backbone and trunk among them.

    Where both have an option, such as `num_classes`, it is the outer one.
    """
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    inner = fields.pop("backbone", None) or fields.pop("trunk", None)
    return fields if inner is None else {**options(inner), **fields}


def overridden(config: Any, changes: Mapping[str, Any]) -> Any:
    """A config with other values of some `options`. Raises ValueError as the configs do."""
    own = {field.name for field in dataclasses.fields(config)}
    mine = {name: changes[name] for name in changes if name in own}
    others = {name: changes[name] for name in changes if name not in own}
    if others:
        inner = "backbone" if "backbone" in own else "trunk"
        mine[inner] = overridden(getattr(config, inner), others)
    return dataclasses.replace(config, **mine)

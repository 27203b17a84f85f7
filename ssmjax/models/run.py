"""How a model is run: one object from a model's call down to its blocks."""

from dataclasses import dataclass, field

import jax

from kernels.selective_scan.inputs import STATIC


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Run:
    """The options of one forward pass; a pytree of its arrays, the others are static.

    Attributes:
      key: random key for all that is left to chance: drop path, `importance="random"`.
      image_sizes: [B,2] (height, width) in pixels of each image without its padding at the bottom
        and the right, so that pruning drops the padding first; None: there is none.
      train: whether drop path acts and batch norms train; see `ssmjax.layers.norm.BatchNorm`.
      implementation: of the scan; see `kernels.selective_scan`.
      remat: whether a gradient recomputes the insides of each block, to need less memory.
      trace: whether blocks hand on what they normalise and what their mixers give.
    """

    key: jax.Array | None = None
    image_sizes: jax.typing.ArrayLike | None = None
    train: bool = field(default=False, metadata=STATIC)
    implementation: str | None = field(default=None, metadata=STATIC)
    remat: bool = field(default=False, metadata=STATIC)
    trace: bool = field(default=False, metadata=STATIC)

    def split(self, parts: int) -> tuple[jax.Array | None, ...]:
        """A key for each of so many parts of the model; None for each where there is no key."""
        return (None,) * parts if self.key is None else tuple(jax.random.split(self.key, parts))

    @property
    def drop_key(self) -> jax.Array | None:
        """The key for drop path."""
        return self.split(2)[0]

    def choice_key(self, stage: int) -> jax.Array | None:
        """The key by which pruning stage `stage`, from 0, chooses tokens."""
        key = self.split(2)[1]
        return None if key is None else jax.random.fold_in(key, stage)

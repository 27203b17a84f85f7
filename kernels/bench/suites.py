"""The sizes that are timed."""

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

KEPT = (157, 125, 101)  # Of 197 tokens, after one, two and three stages of keeping 0.8.


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of the scan.

    Attributes:
      name: of the model whose layer it is.
      batch: B.
      kept: K, tokens present.
      length: L, tokens of the whole sequence; more than `kept` after pruning.
      channels: E.
      states: N.
      dtype: of u, delta, B, C and z.
    """

    name: str
    batch: int
    kept: int
    length: int
    channels: int
    states: int = 16
    dtype: str = "float32"

    def inputs(self, seed: int) -> dict[str, jax.Array | None]:
        """Arguments of `selective_scan`, of ordinary sizes; positions None when nothing is pruned.

        Raw steps and their bias are such that the steps are log-uniform in 1e-3 to 1e-1.
        """
        rng = np.random.default_rng(seed)
        tokens = (self.batch, self.kept, self.channels)
        states = (self.batch, self.kept, self.states)
        normal = partial(rng.standard_normal, dtype=np.float32)
        step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), tokens))
        wide = {
            "A": -np.tile(np.arange(1, self.states + 1, dtype=np.float32), (self.channels, 1)),
            "D": np.ones(self.channels, np.float32),
            "delta_bias": np.full(self.channels, -1, np.float32),
        }
        narrow = {
            "u": normal(tokens),
            "delta": np.log(np.expm1(step)) + 1,
            "B": normal(states),
            "C": normal(states),
            "z": normal(tokens),
        }
        arrays: dict[str, jax.Array | None] = {name: jnp.asarray(a) for name, a in wide.items()}
        arrays |= {name: jnp.asarray(a, self.dtype) for name, a in narrow.items()}
        arrays["positions"] = None
        if self.kept < self.length:
            ranks = rng.random((self.batch, self.length)).argsort(axis=1)[:, : self.kept]
            arrays["positions"] = jnp.asarray(np.sort(ranks, axis=1), jnp.int32)
        return arrays

    @property
    def exponentials(self) -> int:
        """Of the recurrence, in one forward pass."""
        return self.batch * self.kept * self.channels * self.states

    @property
    def forward_bytes(self) -> int:
        """What a forward pass must read and write: u, delta, z, B, C in, y out."""
        size = jnp.dtype(self.dtype).itemsize
        return size * self.batch * self.kept * (4 * self.channels + 2 * self.states)

    def __str__(self) -> str:
        kept = f"{self.kept} of {self.length}" if self.kept < self.length else f"{self.kept}"
        return f"{self.name}, batch {self.batch}, {kept} tokens, {self.dtype}"


def _layers(models: Mapping[str, int], batches: tuple[int, ...], dtype: str) -> tuple[Case, ...]:
    """The layers of models {name: E} dense and at each stage of pruning."""
    return tuple(
        Case(name, batch, kept, 197, channels, dtype=dtype)
        for name, channels in models.items()
        for batch in batches
        for kept in (197, *KEPT)
    )


VIM = {"vim_tiny": 384, "vim_small": 768, "vim_base": 1536}
PLAIN_MAMBA = {"plainmamba_l1": 384, "plainmamba_l2": 768, "plainmamba_l3": 896}
BATCHES = (1, 64, 128, 256)

SUITES: Mapping[str, tuple[Case, ...]] = {
    "demo": (
        Case("demo", 64, 65, 65, 128, 4),
        Case("demo", 64, 13, 65, 128, 4),
    ),
    "cpu": (
        Case("vim_small", 1, 197, 197, 768),
        Case("vim_small", 8, 197, 197, 768),
        Case("vim_small", 8, 125, 197, 768),
        Case("vim_small", 8, 197, 197, 768, dtype="bfloat16"),
    ),
    "vim": _layers(VIM, BATCHES, "bfloat16"),
    "plain_mamba": _layers(PLAIN_MAMBA, BATCHES, "bfloat16"),
    "high_resolution": tuple(
        Case("vim_small", 2, kept, length, 768, dtype="bfloat16")
        for length in (4096, 16384)
        for kept in (length, length * 4 // 5)
    ),
}

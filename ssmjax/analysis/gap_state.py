"""Draw what alignment does to the hidden state in a gap, on one channel with one state.

python -m ssmjax.analysis.gap_state --out docs/gap_state.png
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from kernels import selective_scan
from ssmjax import command_line
from ssmjax.analysis.figure import new_figure, save_figure

LENGTH = 32
GAP = range(11, 21)  # Positions of the tokens that are pruned: they say little.
STEP = 0.15


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw the hidden state of a dense, an aligned and an unaligned scan over one gap."""

    out: Path
    """PNG to write."""


def states(u: np.ndarray, kept: Sequence[int], alignment: str) -> np.ndarray:
    """The hidden state at each of the original positions.

    Args:
      u: [L] float, the input; each step is `STEP`, A is -1, B is 1.
      kept: increasing positions of the tokens that the scan sees.
      alignment: of `kernels.selective_scan`.

    Returns:
      [L] float32. In a gap it is what a token with an empty step finds that stands behind it.
    """
    found = []
    for position in range(len(u)):
        before = [k for k in kept if k <= position]
        seen = np.array([*before, position + 1], np.int32)[None]
        inputs = np.array([*u[before], 0], np.float32)[None, :, None]
        steps = np.array([*(STEP for _ in before), 0], np.float32)[None, :, None]
        ones = jnp.ones_like(inputs)
        _, last = selective_scan(
            jnp.asarray(inputs),
            jnp.asarray(steps),
            jnp.array([[-1.0]]),
            ones,
            ones,
            positions=jnp.asarray(seen),
            alignment=alignment,
            return_last_state=True,
        )
        found.append(last[0, 0, 0])
    return np.array(found)


def main() -> None:
    """The command: compute, draw."""
    options = command_line.parse(Options, description=__doc__ or "")
    command_line.check_png("--out", options.out)
    everything = range(LENGTH)
    kept = [p for p in everything if p not in GAP]
    u = 1.2 + np.sin(0.9 * np.arange(LENGTH))
    u[list(GAP)] *= 0.1
    figure = new_figure()
    axes = figure.add_subplot(xlabel="position in the sequence", ylabel="hidden state")
    axes.axvspan(GAP[0] - 0.5, GAP[-1] + 0.5, color="0.92", label="pruned: inputs a tenth as large")
    axes.plot(everything, states(u, everything, "none"), "k--", label="dense: all tokens")
    for alignment, color, label in (
        ("previous", "tab:blue", "pruned, aligned: each pruned token moves the state on"),
        ("none", "tab:orange", "pruned, not aligned: the state stands still"),
    ):
        line = states(u, kept, alignment)
        axes.plot(everything, line, color=color, label=label)
        axes.plot(kept, line[kept], "o", color=color, markersize=4)
    axes.set_ylim(0, 2.2)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=8)
    save_figure(figure, options.out)


if __name__ == "__main__":
    command_line.run(main)

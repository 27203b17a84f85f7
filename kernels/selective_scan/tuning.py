"""Block sizes of the Triton kernels, chosen from sizes alone so that every machine lowers the same.

The measurements behind the numbers are in kernels/README.md.
"""

import dataclasses

from kernels.selective_scan.lanes import LANES

MAX_STATES = 16  # More are scanned in pieces: a lane keeps the states of its channels in registers.
SCHEDULERS = 528  # Of an H200: 132 multiprocessors with four each.


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a kernel cuts its work.

    Attributes:
      channels: of a block, in each of its 32 lanes: 1 or 2.
      tokens: unrolled together. Where states are saved, one is saved for as many tokens.
    """

    channels: int
    tokens: int

    @property
    def block(self) -> int:
        """Channels of a block."""
        return LANES * self.channels


def inference(batch: int, channels: int) -> Tiling:
    """For the forward pass that saves nothing.

    Two channels a lane share the loads of B and C, as long as that leaves a warp per scheduler.
    """
    return Tiling(2 if batch * channels >= 64 * SCHEDULERS else 1, 4)


def training() -> Tiling:
    """For the forward pass that saves states and the backward pass."""
    return Tiling(1, 4)

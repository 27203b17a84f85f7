"""Photos of data sets, of which some may be unreadable."""

import numpy as np

from ssmjax import decode as decoder


def decode(encoded: bytes) -> np.ndarray | None:
    """The photo in a file, as `ssmjax.decode` reads it for every command.

    Args:
      encoded: the whole file.

    Returns:
      [H,W,3] uint8, RGB; None where the bytes are no readable picture, or a part of one only.
    """
    try:
        return decoder.decode(encoded)
    except ValueError:
        return None

"""Photos of data sets, of which some may be unreadable."""

import numpy as np

from ssmjax import decode as decoder


def decode(encoded: bytes) -> np.ndarray | None:
    """The photo in a whole file's bytes, [H,W,3] uint8, RGB, as every command reads it.

    None where they are no readable picture, or a part of one only.
    """
    try:
        return decoder.decode(encoded)
    except ValueError:
        return None

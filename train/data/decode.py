"""From the bytes of an image file to its pixels.

OpenCV decodes: the fastest of those tried (simplejpeg, Pillow), and its JPEG pixels are Pillow's
bit for bit. That it can decode at half the size is not used: the pixels would be others, and a
random part of a photo is often not much larger than what the model takes.
"""

import cv2
import numpy as np


def decode(encoded: bytes) -> np.ndarray | None:
    """The photo as people see it: upright by its EXIF orientation, in RGB.

    Grey becomes three equal channels, 16 bits become their upper 8, and transparency is ignored,
    as by Pillow's `convert("RGB")`.

    Args:
      encoded: a file of JPEG, PNG, WebP, TIFF or BMP; what it is, is told by its content.

    Returns:
      [H,W,3] uint8; None where the bytes are no such file, or a part of one only.
    """
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # No bytes at all, or a header that claims too large an image.
        return None

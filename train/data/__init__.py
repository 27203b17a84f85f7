"""Image data: fetching and preparing data sets, and batches of them for training."""

import os

# Who asked names the photos that cannot be read; OpenCV, loaded later, need not.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

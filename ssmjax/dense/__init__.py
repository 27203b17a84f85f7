"""Dense tasks: detection, instance and semantic segmentation.

Boxes are float32 (x1, y1, x2, y2) in pixels, maps are channels last. What works on sets of boxes
takes those of one image, padded to a fixed number, with a mask of the valid ones; `jax.vmap` makes
it a batch.
"""

from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.dense.flops import flops
from ssmjax.dense.registry import create_model, list_models

__all__ = ["DensePruneConfig", "create_model", "flops", "list_models"]

"""How all tests run: quickly compiled, as they run little, and with shapes checked."""

import os

# Before jax is imported, and for the commands that tests start; set it to 0 to test what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jaxtyping

from tests import shapes

jaxtyping.install_import_hook(["kernels", "ssmjax"], f"{shapes.__name__}.checked")

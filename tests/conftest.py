"""How all tests run: quickly compiled, as they run little, and with shapes checked."""

import os

# Before jax is imported, and for the commands that tests start; set it to 0 to test what users run.
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0":
    # A quarter of the time: loops without MLIR's emitters, a program not cut up for many threads.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
        " --xla_cpu_parallel_codegen_split_count=1",
    )

import jaxtyping

from tests import shapes

jaxtyping.install_import_hook(["kernels", "ssmjax"], f"{shapes.__name__}.checked")

"""How the tests run Mosaic GPU kernels without a GPU."""

# Public as `plgpu.InterpretGPUParams` from jax 0.11 on.
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

# Outputs, shared memory and what the copy engine reads past the end start as NaN.
MOSAIC = InterpretGPUParams(out_of_bounds_reads="uninitialized")

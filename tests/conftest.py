"""How all tests compile: as they run little, optimising it takes longer than it saves."""

import os

# Before jax is imported, and for the commands that tests start; set it to 0 to test what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

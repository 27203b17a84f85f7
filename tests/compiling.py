"""How tests compile."""

import contextlib

import jax


@contextlib.contextmanager
def unoptimised():
    """For what takes longer to optimise than to run, as many small operations do."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)

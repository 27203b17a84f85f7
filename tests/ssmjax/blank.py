"""Models to be filled from a state_dict: drawing values first would take most of the time."""

from flax import nnx

import ssmjax


def blank_model(name: str, **options):
    """`create_model` without values: shapes and dtypes alone."""
    return nnx.eval_shape(lambda: ssmjax.create_model(name, **options))

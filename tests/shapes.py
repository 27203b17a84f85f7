"""What checks shapes while tests run: see `kernels.array_types`."""

import typing

import jaxtyping
from beartype import beartype


def checked(function):
    """`function` with its shapes checked, where its annotations have some.

    jaxtyping asks for two checks: one of the arguments before a call, which is left out, and one of
    arguments and result after it. So what a function refuses by itself raises its own error.
    Constructors are not checked, since pytrees are also made of placeholders.
    """
    hints = dict(function.__annotations__)
    before = hints.pop("return", typing.Any) is typing.Any
    if before or function.__name__ == "__init__" or not any(map(_has_shape, hints.values())):
        return function
    return beartype(function)


def _has_shape(hint) -> bool:
    if isinstance(hint, type):
        return issubclass(hint, jaxtyping.AbstractArray)
    return any(map(_has_shape, typing.get_args(hint)))

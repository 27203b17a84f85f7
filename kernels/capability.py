"""What the devices at hand can run, and computations that only some of them can."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

OLDEST_CUDA = (8, 0)  # The first compute capability that Triton's Pallas backend supports.


# Part of what `jax.jit` caches by, so that no computation is traced for the wrong device.
_assumed = jax.make_user_context(default_value=None)


def assume_cuda(there: bool) -> AbstractContextManager[None]:
    """A context in which `has_cuda` says `there`: to look at what other machines would compute."""
    return _assumed(there)


def has_cuda() -> bool:
    """Whether computations go by default to a CUDA GPU of compute capability 8.0 or more."""
    if _assumed.value is not None:
        return _assumed.value
    device = _default_device()
    return device.platform == "gpu" and _capability(device) >= OLDEST_CUDA


def shortcoming() -> str | None:
    """What a GPU here that is too old for the kernels means for a run; None where none is."""
    device = _default_device()
    if device.platform != "gpu" or has_cuda():
        return None
    found, oldest = ("{}.{}".format(*pair) for pair in (_capability(device), OLDEST_CUDA))
    return (
        f"{device.device_kind} has CUDA compute capability {found}, below {oldest}: the scan runs "
        'as "reference" instead of the GPU kernel, slower, and bfloat16 is emulated; give '
        "--model.dtype float32."
    )


def only_on_cuda(
    x: jax.Array, *, kernel: str = "Triton", oldest: tuple[int, int] = OLDEST_CUDA
) -> jax.Array:
    """x itself, in a computation that can be traced anywhere but run only on CUDA GPUs.

    Lowering for CUDA works on any machine, with or without a GPU.

    Args:
      x: any array.
      kernel: who asks, for the error.
      oldest: the first compute capability that will do.

    Raises:
      NotImplementedError: when lowered for another platform or for an older GPU that is here.
    """
    return _only_on_cuda_p.bind(x, kernel=kernel, oldest=oldest)


def _default_device() -> Any:
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return chosen if isinstance(chosen, jax.Device) else jax.devices(chosen)[0]


def _capability(device: Any) -> tuple[int, int]:
    """Of a CUDA device; (0, 0) for GPUs of other makes, whose versions are names."""
    major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _lower_elsewhere(context: Any, x: Any, *, kernel: str, oldest: tuple[int, int]) -> Any:
    platforms = ", ".join(context.module_context.platforms)
    raise NotImplementedError(
        f"The {kernel} kernel runs on CUDA GPUs only, and this is {platforms}; "
        'choose another implementation, such as "reference".'
    )


def _lower_on_cuda(context: Any, x: Any, *, kernel: str, oldest: tuple[int, int]) -> list[Any]:
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:
        return [x]  # No GPU here: lowered for another machine.
    found = min(map(_capability, devices))
    if found < oldest:
        raise NotImplementedError(
            f"The {kernel} kernel needs compute capability {oldest[0]}.{oldest[1]}, and a GPU here "
            f'has {found[0]}.{found[1]}; choose another implementation, such as "reference".'
        )
    return [x]


_only_on_cuda_p = Primitive("only_on_cuda")
_only_on_cuda_p.def_impl(lambda x, **options: jax.jit(partial(only_on_cuda, **options))(x))
_only_on_cuda_p.def_abstract_eval(lambda x, **options: x)
batching.primitive_batchers[_only_on_cuda_p] = lambda arrays, axes, **options: (
    _only_on_cuda_p.bind(*arrays, **options),
    axes[0],
)
mlir.register_lowering(_only_on_cuda_p, _lower_elsewhere)
mlir.register_lowering(_only_on_cuda_p, _lower_on_cuda, platform="cuda")

"""What the devices at hand can run, and computations that only some of them can."""

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

OLDEST_CUDA = (8, 0)  # The first compute capability that Triton's Pallas backend supports.


def has_cuda() -> bool:
    """Whether computations go by default to a CUDA GPU of compute capability 8.0 or more."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    device = chosen if isinstance(chosen, jax.Device) else jax.devices(chosen)[0]
    return device.platform == "gpu" and _capability(device) >= OLDEST_CUDA


def only_on_cuda(x: jax.Array) -> jax.Array:
    """x itself, in a computation that can be traced anywhere but run only where `has_cuda` holds.

    Lowering for CUDA works on any machine, with or without a GPU.

    Args:
      x: any array.

    Returns:
      x.

    Raises:
      NotImplementedError: when lowered for another platform or for an older GPU that is here.
    """
    return _only_on_cuda_p.bind(x)


def _capability(device) -> tuple[int, int]:
    """Of a CUDA device; (0, 0) for GPUs of other makes, whose versions are names."""
    major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _lower_elsewhere(context, x):
    platforms = ", ".join(context.module_context.platforms)
    raise NotImplementedError(
        f"The Triton kernel runs on CUDA GPUs only, and this is {platforms}; "
        'choose another implementation, such as "reference".'
    )


def _lower_on_cuda(context, x):
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:
        return [x]  # No GPU here: lowered for another machine.
    found = min(map(_capability, devices))
    if found < OLDEST_CUDA:
        raise NotImplementedError(
            f"The Triton kernel needs compute capability 8.0, and a GPU here has "
            f'{found[0]}.{found[1]}; choose another implementation, such as "reference".'
        )
    return [x]


_only_on_cuda_p = Primitive("only_on_cuda")
_only_on_cuda_p.def_impl(lambda x: jax.jit(_only_on_cuda_p.bind)(x))
_only_on_cuda_p.def_abstract_eval(lambda x: x)
batching.primitive_batchers[_only_on_cuda_p] = lambda arrays, axes: (
    _only_on_cuda_p.bind(*arrays),
    axes[0],
)
mlir.register_lowering(_only_on_cuda_p, _lower_elsewhere)
mlir.register_lowering(_only_on_cuda_p, _lower_on_cuda, platform="cuda")

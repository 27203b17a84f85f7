"""Keeping freed memory on the CPU, where fresh pages cost time in every training step."""

import ctypes
import sys

# Parameter numbers of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; call once, at the start of a program, before jax runs.

    XLA allocates its temporaries anew at every call. By default glibc hands buffers of that size
    back to the kernel when they are freed, and each call then faults in every page again. The
    process keeps its peak memory until it ends.

    Returns:
      Whether it took effect; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    never = -1  # Read as the largest size there is.
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: never, _M_TOP_PAD: 1 << 28}
    return all(mallopt(parameter, value) for parameter, value in settings.items())

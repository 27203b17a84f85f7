"""Kernels that run on each device's own images, when a batch is spread over several devices."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

_Arrays = tuple[jax.Array, ...]
_Flat = Callable[..., _Arrays]
_Ranks = Sequence[tuple[int, int | None]]  # Of arrays: dimensions, and the batch's axis among them.


def per_image(
    function: Callable[[dict[str, jax.Array]], Any],
    operands: dict[str, jax.Array],
    shared: Collection[str],
) -> Any:
    """`function(operands)`, partitioned by images under `jax.jit` on several devices.

    XLA cannot look into a kernel: left alone, it would gather the whole batch on every device.
    The call can be mapped by `jax.vmap`; it has no derivative of its own.

    Args:
      function: its results all have the batch as their first axis; images do not influence one
        another in it.
      operands: arrays with the batch as their first axis, but for the shared ones.
      shared: names of the operands that all images share.
    """

    def flat(*arrays: jax.Array) -> _Arrays:
        return tuple(jax.tree.leaves(function(dict(zip(operands, arrays, strict=True)))))

    batch_axes = [None if name in shared else 0 for name in operands]
    structure = jax.tree.structure(jax.eval_shape(function, operands))
    return jax.tree.unflatten(structure, _mappable(flat, batch_axes, 0)(*operands.values()))


def _mappable(function: _Flat, batch_axes: Sequence[int | None], depth: int) -> _Flat:
    """`_partitioned`, under one more `jax.vmap` for each unit of `depth`, and for any more."""

    @custom_vmap
    def run(*arrays: jax.Array) -> _Arrays:
        return _partitioned(function, batch_axes, depth)(*arrays)

    @run.def_vmap
    def mapped(
        axis_size: int, mapped_arrays: Sequence[bool], *arrays: jax.Array
    ) -> tuple[_Arrays, tuple[bool, ...]]:
        del axis_size
        inner = jax.vmap(
            function, in_axes=[0 if is_mapped else None for is_mapped in mapped_arrays]
        )
        deeper = [
            axis if axis is None else axis + is_mapped
            for axis, is_mapped in zip(batch_axes, mapped_arrays, strict=True)
        ]
        results = _mappable(inner, deeper, depth + 1)(*arrays)
        return results, (True,) * len(results)

    return run


def _partitioned(function: _Flat, batch_axes: Sequence[int | None], depth: int) -> _Flat:
    """`function` with its batch at these axes of its arguments and at `depth` of its results."""

    def batch_sharding(mesh: Any, arguments: Any) -> Callable[[int | None], NamedSharding]:
        """How the batch is spread, told by the first argument that has it, and that of the rest."""
        place, axis = next((i, axis) for i, axis in enumerate(batch_axes) if axis is not None)
        spec = arguments[place].sharding.spec
        spread = spec[axis] if axis < len(spec) else None

        def sharding(batch_axis: int | None) -> NamedSharding:
            before = () if batch_axis is None else (*[None] * batch_axis, spread)
            return NamedSharding(mesh, PartitionSpec(*before))

        return sharding

    def infer(mesh: Any, arguments: Any, results: Any) -> tuple[NamedSharding, ...]:
        return tuple(batch_sharding(mesh, arguments)(depth) for _ in results)

    def partition(mesh: Any, arguments: Any, results: Any) -> tuple[Any, ...]:
        sharding = batch_sharding(mesh, arguments)
        of_arguments = tuple(sharding(axis) for axis in batch_axes)
        return mesh, function, tuple(sharding(depth) for _ in results), of_arguments

    def run(*arrays: jax.Array) -> _Arrays:
        whole = custom_partitioning(function)
        results = jax.eval_shape(function, *arrays)
        whole.def_partition(
            partition,
            infer_sharding_from_operands=infer,
            sharding_rule=_rule(
                [(a.ndim, axis) for a, axis in zip(arrays, batch_axes, strict=True)],
                [(r.ndim, depth) for r in results],
            ),
        )
        return whole(*arrays)

    return run


def _rule(arguments: _Ranks, results: _Ranks) -> str:
    """Which axes go together, in Shardy's notation: those of the batch, and no others."""

    def axes(prefix: str, arrays: _Ranks) -> str:
        return ", ".join(
            " ".join("batch" if k == axis else f"{prefix}{i}x{k}" for k in range(ndim))
            for i, (ndim, axis) in enumerate(arrays)
        )

    return f"{axes('a', arguments)} -> {axes('r', results)}"

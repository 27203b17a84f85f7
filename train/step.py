"""What is compiled: the training step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from train.config import OptimConfig
from train.optim import frozen_mask

Batch = dict[str, jax.Array]  # All with the images along the first axis.
Step = Callable[["TrainState", Batch], tuple["TrainState", dict[str, jax.Array]]]


class Loss(Protocol):
    """What a task learns by: all that the step knows of it.

    It is a pytree, whose arrays (such as a teacher's) are arguments of the compiled step; the rest
    of it is compared, so that equal losses share one.
    """

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """What is done to the whole batch, before it is split to be worked through in parts."""
        ...

    def __call__(self, model: Any, batch: Batch, key: jax.Array) -> jax.Array:
        """The mean over the images of a part of what `prepare` gave: a scalar, float32 or wider.

        It may change the model's `nnx.BatchStat` variables in place.
        """
        ...


class TrainState(NamedTuple):
    """Everything a step changes.

    Attributes:
      step: int32 scalar, steps done, those skipped included.
      params: the model's parameters.
      averaged: their exponential moving average; the same tree as `params`.
      statistics: running ones of the model's batch norms, which move where these train.
      opt_state: the optimiser's state.
      skipped: int32 scalar, steps in all that changed nothing, since their loss or gradient was not
        finite.
      skipped_in_a_row: int32 scalar, the last of them that came one after the other.
    """

    step: jax.Array
    params: nnx.State
    averaged: nnx.State
    statistics: nnx.State
    opt_state: optax.OptState
    skipped: jax.Array
    skipped_in_a_row: jax.Array


def init_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. Raises ValueError as the optimiser does."""
    params, statistics = nnx.state(model, nnx.Param, nnx.BatchStat)
    # The step donates its input: no buffer may serve twice, nor belong to a model still in use.
    first, second, third = (jax.tree.map(jnp.copy, a) for a in (params, params, statistics))
    counts = (jnp.int32(0) for _ in range(3))
    return TrainState(next(counts), first, second, third, optimizer.init(params), *counts)


def make_train_step(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    config: OptimConfig,
    loss: Loss,
    key: jax.Array,
    state: TrainState,
) -> Step:
    """The jitted step: (state, batch) to (state, metrics); the state is donated.

    The metrics are scalars: "loss", "grad_norm" (before clipping) and "skipped_in_a_row".

    Args:
      model: the one whose parameters and statistics the state holds; its other variables stay as
        they are.
      optimizer: from `train.optim`.
      config: accumulation, averaging, what is frozen.
      loss: from `train.tasks`.
      key: folded with the step's number for all that is random.
      state: the one to start from; those that follow are spread over devices as it is.
    """
    graphdef, _, _, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    places = tuple(a.sharding if a.committed else None for a in jax.tree.leaves(state))
    step = _compiled(graphdef, optimizer, config, jax.tree.structure(state), places)
    # Placed once, on all devices, as the state's scalars are.
    constant = jax.jit(lambda arrays: arrays, out_shardings=places[0])((key, others, loss))
    return lambda state, batch: step(state, batch, *constant)


@functools.lru_cache(maxsize=1)  # Runs that differ in the seed alone compile once.
def _compiled(graphdef, optimizer: optax.GradientTransformation, config, structure, places):
    def step(state: TrainState, batch, key, others, loss: Loss):
        prepare_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        frozen = frozen_mask(state.params, config.frozen)

        def loss_of(params, statistics, part, part_key):
            params = jax.tree.map(lambda a, f: lax.stop_gradient(a) if f else a, params, frozen)
            # Copied, since its statistics change in place.
            model = nnx.merge(graphdef, params, statistics, others, copy=True)
            return loss(model, part, part_key), nnx.state(model, nnx.BatchStat)

        prepared = loss.prepare(batch, prepare_key)
        value, grads, statistics = _accumulated(loss_of, state, prepared, loss_key, config)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        averaged = params
        if config.ema is not None:
            warm = (1 + state.step) / (10 + state.step) if config.ema_warmup else 1.0
            decay = jnp.minimum(config.ema, warm)
            # Written so that what is frozen stays exactly as it is.
            averaged = jax.tree.map(
                lambda new, old: old + (1 - decay) * (new - old), params, state.averaged
            )
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        params, averaged, statistics, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, averaged, statistics, opt_state),
            (state.params, state.averaged, state.statistics, state.opt_state),
        )
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        skipped = state.skipped + ~finite
        metrics = {"loss": value, "grad_norm": norm, "skipped_in_a_row": in_a_row}
        after = params, averaged, statistics, opt_state
        return TrainState(state.step + 1, *after, skipped, in_a_row), metrics

    return jax.jit(
        step, donate_argnums=0, out_shardings=(jax.tree.unflatten(structure, places), None)
    )


def _accumulated(loss_of, state: TrainState, batch, key, config: OptimConfig):
    """The mean over parts of a batch, one after the other, of loss and gradient.

    Statistics move from part to part: a batch norm that trains sees one part at a time.
    """
    parts = config.accumulate

    def split(array):
        # Part i takes rows i, i + parts, ...: an even share of what each device holds.
        return jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)

    def of_part(statistics, inputs):
        found = jax.value_and_grad(loss_of, has_aux=True)
        (value, statistics), grads = found(state.params, statistics, *inputs)
        return (value, grads), statistics

    def add(carry, inputs):
        total, statistics = carry
        found, statistics = of_part(statistics, inputs)
        return (jax.tree.map(jnp.add, total, found), statistics), None

    inputs = jax.tree.map(split, batch), jax.random.split(key, parts)
    first = jax.tree.map(lambda a: a[0], inputs)
    if parts == 1:  # A loop would cost CPUs dearly: XLA's convolutions are slow in one there.
        (value, grads), statistics = of_part(state.statistics, first)
        return value, grads, statistics
    shapes, _ = jax.eval_shape(of_part, state.statistics, first)
    none = jax.tree.map(jnp.zeros_like, shapes)
    (total, statistics), _ = lax.scan(add, (none, state.statistics), inputs)
    return *jax.tree.map(lambda a: a / parts, total), statistics

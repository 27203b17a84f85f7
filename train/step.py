"""What is compiled: the training step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from ssmjax import Backbone
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

    def __call__(self, model: Backbone, batch: Batch, key: jax.Array) -> jax.Array:
        """The mean over the images of a part of what `prepare` gave: a scalar, float32 or wider."""
        ...


class TrainState(NamedTuple):
    """Everything a step changes.

    Attributes:
      step: int32 scalar, steps done, those skipped included.
      params: the model's parameters.
      averaged: their exponential moving average; the same tree as `params`.
      opt_state: the optimiser's state.
      skipped: int32 scalar, steps in all that changed nothing, since their loss or gradient was not
        finite.
      skipped_in_a_row: int32 scalar, the last of them that came one after the other.
    """

    step: jax.Array
    params: nnx.State
    averaged: nnx.State
    opt_state: optax.OptState
    skipped: jax.Array
    skipped_in_a_row: jax.Array


def init_state(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. Raises ValueError as the optimiser does."""
    # The step donates its input: no buffer may serve twice, nor belong to a model still in use.
    first, second = (jax.tree.map(jnp.copy, params) for _ in range(2))
    counts = (jnp.int32(0) for _ in range(3))
    return TrainState(next(counts), first, second, optimizer.init(params), *counts)


def make_train_step(
    model: Backbone,
    optimizer: optax.GradientTransformation,
    config: OptimConfig,
    loss: Loss,
    key: jax.Array,
    state: TrainState,
) -> Step:
    """The jitted step: (state, batch) to (state, metrics); the state is donated.

    The metrics are scalars: "loss", "grad_norm" (before clipping) and "skipped_in_a_row".

    Args:
      model: the one whose parameters the state holds; its other variables stay as they are.
      optimizer: from `train.optim`.
      config: accumulation, averaging, what is frozen.
      loss: from `train.tasks`.
      key: folded with the step's number for all that is random.
      state: the one to start from; those that follow are spread over devices as it is.
    """
    graphdef, _, buffers = nnx.split(model, nnx.Param, ...)
    places = tuple(a.sharding if a.committed else None for a in jax.tree.leaves(state))
    step = _compiled(graphdef, optimizer, config, jax.tree.structure(state), places)
    # Placed once, on all devices, as the state's scalars are.
    constant = jax.jit(lambda arrays: arrays, out_shardings=places[0])((key, buffers, loss))
    return lambda state, batch: step(state, batch, *constant)


@functools.lru_cache(maxsize=1)  # Runs that differ in the seed alone compile once.
def _compiled(graphdef, optimizer: optax.GradientTransformation, config, structure, places):
    def step(state: TrainState, batch, key, buffers, loss: Loss):
        prepare_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        frozen = frozen_mask(state.params, config.frozen)

        def loss_of(params, part, part_key):
            params = jax.tree.map(lambda a, f: lax.stop_gradient(a) if f else a, params, frozen)
            return loss(nnx.merge(graphdef, params, buffers), part, part_key)

        prepared = loss.prepare(batch, prepare_key)
        value, grads = _accumulated(loss_of, state.params, prepared, loss_key, config.accumulate)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        averaged = params
        if config.ema is not None:
            # The first steps count fully, so that the average does not remember the start.
            decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
            # Written so that what is frozen stays exactly as it is.
            averaged = jax.tree.map(
                lambda new, old: old + (1 - decay) * (new - old), params, state.averaged
            )
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        params, averaged, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, averaged, opt_state),
            (state.params, state.averaged, state.opt_state),
        )
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        skipped = state.skipped + ~finite
        metrics = {"loss": value, "grad_norm": norm, "skipped_in_a_row": in_a_row}
        return TrainState(state.step + 1, params, averaged, opt_state, skipped, in_a_row), metrics

    return jax.jit(
        step, donate_argnums=0, out_shardings=(jax.tree.unflatten(structure, places), None)
    )


def _accumulated(loss_of, params, batch, key, parts: int):
    """The mean over parts of a batch, one after the other, of loss and gradient."""

    def split(array):
        # Part i takes rows i, i + parts, ...: an even share of what each device holds.
        return jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)

    def add(total, inputs):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_of)(params, *inputs)), None

    inputs = jax.tree.map(split, batch), jax.random.split(key, parts)
    first = jax.tree.map(lambda a: a[0], inputs)
    shapes = jax.eval_shape(jax.value_and_grad(loss_of), params, *first)
    total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), inputs)
    return jax.tree.map(lambda a: a / parts, total)

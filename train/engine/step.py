"""What is compiled: the training step."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from ssmjax.layers.norm import BatchNorm
from train.engine.config import OptimConfig
from train.engine.optim import frozen_mask

Batch = dict[str, jax.Array]  # All with the images along the first axis.
# By name: a sum, float32 or wider, and the number to divide it by, which has no gradient; both are
# scalars that add up over the parts of a batch.
Terms = Mapping[str, tuple[jax.Array, jax.Array]]
Step = Callable[["TrainState", Batch], tuple["TrainState", dict[str, jax.Array]]]


class Loss(Protocol):
    """What a task learns by: all that the step knows of it.

    It is a pytree, whose arrays (such as a teacher's) are arguments of the compiled step; the rest
    of it is compared, so that equal losses share one.
    """

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """What is done to the whole batch, before it is split to be worked through in parts."""
        ...

    def __call__(self, model: Any, batch: Batch, key: jax.Array) -> Terms:
        """The terms of the loss, of a part of what `prepare` gave.

        The loss is the sum of the terms, of each the sum over the parts divided by the number over
        the parts. It may change the model's `nnx.BatchStat` variables in place.
        """
        ...


class TrainState(NamedTuple):
    """Everything a step changes.

    Attributes:
      step: int32 scalar, steps done, those skipped included: by it go learning rate, warm-up of the
        average and random keys.
      params: the model's parameters.
      averaged: their exponential moving average; the same tree as `params`.
      statistics: running ones of the model's batch norms, which move where these train. They are
        evaluated and saved with `averaged`, not averaged themselves, as mmcv's EMAHook does.
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
      optimizer: from `train.engine.optim`.
      config: accumulation, averaging, what is frozen, what batch norms take as a batch.
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
def _compiled(graphdef, optimizer, config: OptimConfig, structure, places):
    devices = places[0].num_devices if places[0] and config.batch_norm == "device" else 1

    def step(state: TrainState, batch, key, others, loss: Loss):
        prepare_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        frozen = frozen_mask(state.params, config.frozen)

        def terms_of(params, statistics, part, part_key):
            params = jax.tree.map(lambda a, f: lax.stop_gradient(a) if f else a, params, frozen)
            # Copied, since its statistics change in place.
            model = nnx.merge(graphdef, params, statistics, others, copy=True)
            model.set_attributes(BatchNorm, devices=devices, raise_if_not_found=False)
            terms = loss(model, part, part_key)
            totals, numbers = ({k: term[i] for k, term in terms.items()} for i in (0, 1))
            return totals, numbers, nnx.state(model, nnx.BatchStat)

        prepared = loss.prepare(batch, prepare_key)
        value, grads, statistics = _accumulated(
            terms_of, state, prepared, loss_key, config.accumulate
        )
        norm = optax.tree.norm(grads)
        updates, opt_state = optax.with_extra_args_support(optimizer).update(
            grads, state.opt_state, state.params, step=state.step
        )
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


def _accumulated(terms_of, state: TrainState, batch, key, parts: int):
    """Loss and gradient of a batch that is worked through in parts, one after the other.

    The numbers that divide the loss are those of the whole batch, so that they are counted before,
    in a forward pass of which only what they need is computed: of RetinaNet the assignment of
    anchors, of Mask R-CNN all up to the choice of regions, of others nothing.

    Statistics move from part to part, as with PyTorch's accumulation: a batch norm that trains sees
    one part at a time.
    """

    def split(array):
        # Part i takes rows i, i + parts, ...: an even share of what each device holds.
        return jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)

    def count(inputs):
        return terms_of(state.params, state.statistics, *inputs)[1]

    def of_part(statistics, inputs, numbers=None):
        def value_of(params):
            totals, own, after = terms_of(params, statistics, *inputs)
            chosen = own if numbers is None else numbers
            means = [totals[name] / jnp.maximum(chosen[name], 1) for name in totals]
            return sum(means, jnp.float32(0)), after

        (value, statistics), grads = jax.value_and_grad(value_of, has_aux=True)(state.params)
        return (value, grads), statistics

    inputs = jax.tree.map(split, batch), jax.random.split(key, parts)
    first = jax.tree.map(lambda a: a[0], inputs)
    if parts == 1:  # A loop would cost CPUs dearly: XLA's convolutions are slow in one there.
        (value, grads), statistics = of_part(state.statistics, first)
        return value, grads, statistics
    numbers = jax.tree.map(lambda a: a.sum(axis=0), lax.map(count, inputs))

    def add(carry, inputs):
        total, statistics = carry
        found, statistics = of_part(statistics, inputs, numbers)
        return (jax.tree.map(jnp.add, total, found), statistics), None

    shapes, _ = jax.eval_shape(of_part, state.statistics, first)
    none = jax.tree.map(jnp.zeros_like, shapes)
    ((value, grads), statistics), _ = lax.scan(add, (none, state.statistics), inputs)
    return value, grads, statistics

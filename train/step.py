"""What is compiled: the training step."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ssmjax import Backbone
from train.config import OptimConfig

TEMPERATURE = 2.0  # Of both outputs in distillation.


class TrainState(NamedTuple):
    """Everything a step changes.

    Attributes:
      step: int32 scalar, steps done.
      params: the model's parameters.
      averaged: their exponential moving average; the same tree as `params`.
      opt_state: the optimiser's state.
    """

    step: jax.Array
    params: nnx.State
    averaged: nnx.State
    opt_state: optax.OptState


def init_state(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    # The step donates its input: no buffer may serve twice, nor belong to a model still in use.
    first, second = (jax.tree.map(jnp.copy, params) for _ in range(2))
    return TrainState(jnp.int32(0), first, second, optimizer.init(params))


def make_train_step(
    model: Backbone,
    optimizer: optax.GradientTransformation,
    config: OptimConfig,
    key: jax.Array,
    teacher: Backbone | None = None,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step: (state, batch) to (state, {"loss", "grad_norm"}); the state is donated.

    Args:
      model: the one whose parameters the state holds; its other variables stay as they are.
      optimizer: from `train.optim`.
      config: label smoothing, distillation and averaging.
      key: folded with the step's number for drop path and random selection.
      teacher: the model whose outputs to follow, with weight `config.distill`.
    """
    graphdef, _, buffers = nnx.split(model, nnx.Param, ...)
    teacher_graphdef, teacher_state = (None, None) if teacher is None else nnx.split(teacher)
    step = _compiled(graphdef, teacher_graphdef, optimizer, config)
    return lambda state, batch: step(state, batch, key, buffers, teacher_state)


@functools.lru_cache(maxsize=1)  # Runs that differ in the seed alone compile once.
def _compiled(graphdef, teacher_graphdef, optimizer: optax.GradientTransformation, config):
    def loss_of(params, batch, key, buffers, teacher_state):
        logits = nnx.merge(graphdef, params, buffers)(batch["image"], train=True, key=key)
        target = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], logits.shape[-1]), config.label_smoothing
        )
        loss = optax.softmax_cross_entropy(logits, target).mean()
        if teacher_graphdef is None:
            return loss
        said = nnx.merge(teacher_graphdef, teacher_state)(batch["image"])
        soft, follow = (jax.nn.log_softmax(x / TEMPERATURE) for x in (said, logits))
        divergence = jnp.sum(jnp.exp(soft) * (soft - follow), axis=-1).mean()
        return (1 - config.distill) * loss + config.distill * TEMPERATURE**2 * divergence

    def step(state: TrainState, batch, key, *constant):
        step_key = jax.random.fold_in(key, state.step)
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch, step_key, *constant)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = params
        if config.ema is not None:
            # The first steps count fully, so that the average does not remember the start.
            decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
            averaged = optax.incremental_update(params, state.averaged, 1 - decay)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, averaged, opt_state), metrics  # pyright: ignore[reportArgumentType]

    return jax.jit(step, donate_argnums=0)

"""What a run starts with: schedule, optimiser and loss of its task, first state, compiled step."""

from typing import NamedTuple

import jax
import optax

from ssmjax.preprocess import PLAIN
from ssmjax.weights import Metadata
from train import optim
from train.config import OptimConfig
from train.devices import check_batch_size, place_state
from train.step import Loss, Step, TrainState, init_state, make_train_step
from train.tasks.task import Model, Task

# Of a model whose photos are noise, or shapes alone.
NO_PHOTOS = Metadata("", {}, (), PLAIN)


class Means(NamedTuple):
    """What changes a model.

    Attributes:
      rate: learning rate by the number of steps before.
      optimizer: of the model's parameters.
      loss: what the step makes smaller.
    """

    rate: optax.Schedule
    optimizer: optax.GradientTransformation
    loss: Loss


def check_parts(config: OptimConfig, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> None:
    """Refuse parts of a batch that the devices cannot share evenly; raises ValueError."""
    name = "optim.batch_size" + (" / optim.accumulate" if config.accumulate > 1 else "")
    check_batch_size(config.batch_size // config.accumulate, mesh, name)


def means_of(task: Task, model: Model, metadata: Metadata, steps_per_epoch: int) -> Means:
    """What a run changes its model with, which may be one of shapes alone."""
    rate = optim.schedule(task.config.optim, steps_per_epoch)
    return Means(rate, task.optimizer(model, rate), task.loss(model, metadata))


def start(
    task: Task, model: Model, means: Means, mesh: jax.sharding.Mesh, fsdp: bool
) -> tuple[TrainState, Step]:
    """The state before the first step, on the devices, and the step.

    Args:
      task: of the run.
      model: the one to train, pruned as it shall be.
      means: of the same task and model.
      mesh: all devices.
      fsdp: see `train.devices.place_state`.

    Raises:
      ValueError: `optim.frozen` does not fit the model.
    """
    state = place_state(init_state(model, means.optimizer), mesh, fsdp)
    key = jax.random.key(task.config.seed)
    step = make_train_step(model, means.optimizer, task.config.optim, means.loss, key, state)
    return state, step

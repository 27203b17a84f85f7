"""How a model learns: schedule, optimiser and loss of its task, first state, compiled step."""

import dataclasses

import jax
import optax

from ssmjax.preprocess import PLAIN
from ssmjax.weights import Metadata
from train.engine import optim
from train.engine.config import OptimConfig
from train.engine.step import Loss, Step, TrainState, init_state, make_train_step
from train.engine.task import Model, Task
from train.hosts.devices import check_batch_size, place_state

# Metadata of a model whose images are noise, or shapes alone.
NO_IMAGES = Metadata("", {}, (), PLAIN)


@dataclasses.dataclass(frozen=True)
class Learner:
    """A model and what moves its parameters.

    Attributes:
      task: of the run.
      model: the one to start from, pruned as it shall be; perhaps of shapes alone.
      rate: learning rate by the number of steps before.
      optimizer: of the model's parameters.
      loss: what a step makes smaller.
    """

    task: Task
    model: Model
    rate: optax.Schedule
    optimizer: optax.GradientTransformation
    loss: Loss

    def start(self, mesh: jax.sharding.Mesh, fsdp: bool) -> tuple[TrainState, Step]:
        """The state before the first step, placed as `place_state` does, and the step.

        Raises:
          ValueError: `optim.frozen` does not fit the model.
        """
        config = self.task.config
        state = place_state(init_state(self.model, self.optimizer), mesh, fsdp)
        key = jax.random.key(config.seed)
        step = make_train_step(self.model, self.optimizer, config.optim, self.loss, key, state)
        return state, step


def learner_of(
    task: Task, model: Model, metadata: Metadata = NO_IMAGES, steps_per_epoch: int = 1000
) -> Learner:
    """The learner of a model, by its task's optimiser and loss; a teacher is made of the model.

    `metadata` is for the normalisation, `steps_per_epoch` for the schedule.
    """
    rate = optim.schedule(task.config.optim, steps_per_epoch)
    return Learner(task, model, rate, task.optimizer(model, rate), task.loss(model, metadata))


def check_parts(config: OptimConfig, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> None:
    """Refuse parts of a batch that the devices cannot share evenly; raises ValueError."""
    name = "optim.batch_size" + (" / optim.accumulate" if config.accumulate > 1 else "")
    check_batch_size(config.batch_size // config.accumulate, mesh, name)

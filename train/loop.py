"""The training loop, in one order: next batch, step, log, save, evaluate at an epoch's end."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grain
import jax
from rich.progress import Progress

from ssmjax.atomic import replacing
from train.checkpoint import Checkpoints
from train.step import TrainState


class Log:
    """One JSON object a line in `workdir/log.jsonl`; a resumed run drops what it will do again."""

    def __init__(self, path: Path, resumed_step: int):
        kept = [entry for entry in read_log(path) if entry["step"] <= resumed_step]
        with replacing(path) as file:
            file.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        self._path = path

    def write(self, **entry: float) -> None:
        """Append one entry."""
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def read_log(path: Path) -> list[dict[str, float]]:
    """The entries of a log, without a last line that a killed run left unfinished."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def fit(
    state: TrainState,
    step: Callable,
    batches: grain.DatasetIterator,
    *,
    total_steps: int,
    steps_per_epoch: int,
    log_every: int,
    checkpoint_every: int,
    checkpoints: Checkpoints,
    log: Log,
    rate: Callable[[int], float],
    evaluate: Callable[[TrainState], float],
    progress: Progress,
    losses: Sequence[float] = (),
) -> TrainState:
    """Train from `state` to `total_steps`.

    Args:
      state: where to start; its buffers are donated.
      step: from `train.step.make_train_step`.
      batches: endless, standing where the state's step left it.
      total_steps: steps of the whole run, those already done included.
      steps_per_epoch: evaluate after each multiple of it.
      log_every: steps between lines of the log.
      checkpoint_every: steps between checkpoints.
      checkpoints: where the state is saved, together with the place in the data.
      log: gets loss, gradient norm, learning rate, images/s, and accuracy at the end of an epoch.
      rate: learning rate by step.
      evaluate: accuracy of a state.
      progress: shows steps, loss and the time left.
      losses: of the steps since the last line of the log, as the checkpoint has them.

    Raises:
      ValueError: the loss is not finite, naming the step; a checkpoint cannot be written.
    """
    done = start = int(state.step)
    task = progress.add_task("training", total=total_steps, completed=done)
    waiting, clock, images = [*losses], time.perf_counter(), 0
    while done < total_steps:
        batch = next(batches)
        state, metrics = step(state, batch)
        done += 1
        images += len(batch["label"])
        waiting.append(metrics["loss"])
        last = done == total_steps
        if done % log_every == 0 or last:
            losses = [float(loss) for loss in jax.device_get(waiting)]
            for number, loss in enumerate(losses, start=done - len(losses) + 1):
                if not math.isfinite(loss):
                    raise ValueError(
                        f"The loss is {loss} at step {number}; lower --optim.lr (now "
                        f"{float(rate(number - 1)):.2g}) or --optim.clip. The last checkpoint is "
                        f"from step {checkpoints.newest or start}."
                    )
            entry = {"step": done, "loss": sum(losses) / len(losses), "lr": float(rate(done - 1))}
            entry["grad_norm"] = float(metrics["grad_norm"])
            entry["images_per_second"] = images / (time.perf_counter() - clock)
            log.write(**entry)
            progress.update(
                task,
                completed=done,
                description=f"training  loss {entry['loss']:.3f}  "
                f"{entry['images_per_second']:.0f} images/s",
            )
            waiting, clock, images = [], time.perf_counter(), 0
        if done % checkpoint_every == 0 or last:
            unlogged = [float(loss) for loss in jax.device_get(waiting)]
            checkpoints.save(state, {"batches": batches.get_state(), "losses": unlogged})
        if done % steps_per_epoch == 0 and not last:
            log.write(step=done, accuracy=evaluate(state))
            clock, images = time.perf_counter(), 0
    progress.remove_task(task)
    return state

"""The training loop, in one order: next batch, step, log, evaluate at the end of epochs, save."""

import collections
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from train.checkpoint import Checkpoints
from train.data.ahead import Batch
from train.data.unreadable import Unreadable
from train.devices import AHEAD, Lead, place_batch
from train.interrupt import Interrupt
from train.log import Log
from train.profile import Trace
from train.runtime import Runtime
from train.step import TrainState


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a run is, and what happens when, in steps.

    Attributes:
      total: of the whole run, those already done included.
      per_epoch: batches of an epoch.
      evaluate_every: between evaluations.
      log_every: between lines of the log.
      checkpoint_every: between checkpoints.
      max_skipped: in a row, because loss or gradients are not finite.
    """

    total: int
    per_epoch: int
    evaluate_every: int
    log_every: int
    checkpoint_every: int
    max_skipped: int

    def batch(self, step: int) -> str:
        """Which batch a step (from 1) takes, in words."""
        epoch, batch = divmod(step - 1, self.per_epoch)
        return f"batch {batch + 1} of epoch {epoch + 1}"


def fit(
    state: TrainState,
    step: Callable,
    batches: Iterator[Batch],
    plan: Plan,
    *,
    runtime: Runtime,
    checkpoints: Checkpoints,
    log: Log,
    rate: Callable[[int], float],
    evaluate: Callable[[TrainState], Mapping[str, float]],
    score: str,
    unreadable: Unreadable,
    interrupt: Interrupt,
    trace: Trace,
    place: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[TrainState, Mapping[str, float] | None]:
    """Train from `state` to `plan.total` steps, or until interrupted; then save and return.

    Args:
      state: where to start; its buffers are donated.
      step: from `train.step.make_train_step`.
      batches: endless, the first one that of the step after the state's.
      plan: how long, and what happens when.
      runtime: where the batches go, and where progress is shown.
      checkpoints: where the state is saved, together with the place in the data.
      log: gets loss, gradient norm, learning rate, images/s, the share of the time spent waiting
        for photos and for how many shapes of batches the step was compiled; what `evaluate` gives.
      rate: learning rate by step.
      evaluate: the metrics of a state.
      score: that of them by which checkpoints are best; more is better.
      unreadable: takes note of each batch.
      interrupt: asked after each step.
      trace: told of each step.
      place: of the checkpoint that the state is from; what is in it beside the place itself goes
        into those that follow.

    Returns:
      The last state, and what `evaluate` gave of it, or None where it was not evaluated here.

    Raises:
      ValueError: too many steps in a row had a loss or gradients that are not finite, naming step
        and batch; a checkpoint cannot be written.
      train.data.fetch.DataError: too many photos are unreadable.
    """
    done = int(state.step)
    bar = runtime.progress
    task = bar.add_task("training  step", total=plan.total, completed=done)
    # Loss and steps skipped in a row, of the steps since the last line of the log.
    waiting: list[Any] = [*place.get("unlogged", ())]
    placed = _placed(batches, unreadable, runtime)
    clock, images, waited, metrics = time.perf_counter(), 0, 0.0, None
    shapes: set[tuple] = set()
    lead = Lead()
    while done < plan.total:
        asked = time.perf_counter()
        batch = next(placed)
        waited += time.perf_counter() - asked
        with trace.step(done):
            state, told = step(state, batch)
        lead.started(told["loss"])
        done += 1
        images += len(batch["image"])
        shapes.add(tuple(sorted((name, rows.shape) for name, rows in batch.items())))
        waiting.append((told["loss"], told["skipped_in_a_row"]))
        metrics = None
        last = done == plan.total
        stop = interrupt.requested(done)
        if done % plan.log_every == 0 or last:
            entry = _summary(jax.device_get(waiting), done, plan)
            seconds = time.perf_counter() - clock
            entry |= {
                "epoch": done / plan.per_epoch,
                "lr": float(rate(done - 1)),
                "grad_norm": float(told["grad_norm"]),
                "images_per_second": images / seconds,
                "waiting": waited / seconds,
                "shapes": len(shapes),
                "unreadable": len(unreadable),
            }
            if names := unreadable.new_names():
                entry["unreadable_photos"] = names
            log.write(step=done, **entry)
            bar.update(task, completed=done, said=_said(entry))
            waiting, clock, images, waited = [], time.perf_counter(), 0, 0.0
        if done % plan.evaluate_every == 0 or last:
            metrics = evaluate(state)
            log.write(step=done, **metrics)
            clock, images, waited = time.perf_counter(), 0, 0.0
        if done % plan.checkpoint_every == 0 or last or stop or metrics:
            kept = [(float(loss), int(count)) for loss, count in jax.device_get(waiting)]
            place = {
                **place,
                "batches": done,
                "unlogged": kept,
                "unreadable": list(unreadable),
                "metrics": dict(metrics) if metrics else None,
            }
            checkpoints.save(state, place, metrics[score] if metrics else None)
        if stop:
            break
    bar.remove_task(task)
    return state, metrics


def _placed(
    batches: Iterator[Batch], unreadable: Unreadable, runtime: Runtime
) -> Iterator[dict[str, jax.Array]]:
    """The batches on the devices, sent ahead of their use."""
    sent = collections.deque()
    for batch in batches:
        unreadable.note(batch)
        given = {name: value for name, value in batch.items() if name not in ("index", "mask")}
        sent.append(place_batch(given, runtime.mesh))
        if len(sent) == AHEAD:
            yield sent.popleft()


def _summary(waiting: list[tuple[Any, Any]], done: int, plan: Plan) -> dict[str, Any]:
    """Mean loss of the steps that counted, and how many did not.

    Raises:
      ValueError: too many in a row did not.
    """
    for number, (loss, in_a_row) in enumerate(waiting, start=done - len(waiting) + 1):
        if in_a_row > plan.max_skipped:
            raise ValueError(
                f"Loss or gradients were not finite in {in_a_row} steps in a row; the last is step "
                f"{number}, {plan.batch(number)}, with loss {loss}. Lower --optim.lr or "
                "--optim.clip, or allow more with --optim.max-skipped."
            )
    losses = [float(loss) for loss, in_a_row in waiting if in_a_row == 0]
    entry: dict[str, Any] = {"skipped": len(waiting) - len(losses)}
    if losses:
        entry["loss"] = float(np.mean(losses))
    return entry


def _said(entry: dict[str, Any]) -> str:
    loss = entry.get("loss", math.nan)
    return f"loss {loss:.3f}  {entry['images_per_second']:,.0f} images/s"

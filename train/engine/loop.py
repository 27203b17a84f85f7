"""The training loop, in one order: next batch, step, log, evaluate at the end of epochs, save."""

import collections
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from train.engine.log import Sink
from train.engine.session import Job, Metrics, Plan, Session, open_session
from train.engine.task import Model
from train.hosts.devices import PREFETCH, InFlight, of_this_process, place_batch, whole


def train(
    job: Job, model: Model, sinks: Sequence[Sink] = (), trace: Path | None = None
) -> Mapping[str, float]:
    """Train `model` in place, from the workdir's newest sound checkpoint if there is one.

    Where parameters are averaged it becomes the average, and both are measured: the raw ones by
    the metrics' names behind `train.engine.session.RAW`.

    The job's workdir gets log, checkpoints and the best weights. The arguments are those of
    `train.engine.session.open_session`.

    Returns:
      Every metric at the end.

    Raises:
      SystemExit: with status 0, after SIGTERM, when the state is saved.
      ValueError, train.data.fetching.fetch.DataError: as `open_session` and `fit`.
    """
    with open_session(job, model, sinks, trace) as session:
        metrics = fit(session)
    state, done = session.state, int(session.state.step)
    if done < session.plan.total:
        job.runtime.say(
            f"stopped by SIGTERM after step {done} of {session.plan.total}, which is saved; go "
            "on with --resume auto"
        )
        raise SystemExit(0)
    if metrics is None:  # Of a run that had ended, or was stopped after its last checkpoint.
        metrics = session.data_state.get("metrics") or session.evaluate(state)
    average = whole((state.averaged, state.statistics), job.runtime.mesh)
    nnx.update(model, *of_this_process(average))
    return metrics


def fit(session: Session) -> Metrics | None:
    """Train to `plan.total` steps, or until interrupted; then save.

    The log gets loss, gradient norm, learning rate, images/s, the share of the time spent waiting
    for images and for how many shapes of batches the step was compiled; what `evaluate` gives.

    Returns:
      What `evaluate` gave of the last state, or None where it was not evaluated here.

    Raises:
      ValueError: too many steps in a row had a loss or gradients that are not finite, naming step
        and batch; a checkpoint cannot be written.
      train.data.fetching.fetch.DataError: too many images are unreadable.
    """
    plan, log = session.plan, session.log
    done, metrics = int(session.state.step), None
    bar = session.job.runtime.progress
    task = bar.add_task("training  step", total=plan.total, completed=done)
    meter = _Meter(session.data_state.get("unlogged", ()))
    batches, in_flight = _prefetched(session), InFlight()
    while done < plan.total:
        batch = meter.next(batches)
        with session.trace.step(done):
            session.state, result = session.step(session.state, batch)
        in_flight.add(result["loss"])
        done += 1
        meter.losses.append((result["loss"], result["skipped_in_a_row"]))
        metrics, last = None, done == plan.total
        stop = session.interrupt.requested(done)
        if done % plan.log_every == 0 or last:
            entry = meter.entry(session, done, result["grad_norm"])
            log.write(step=done, **entry)
            loss, speed = entry.get("loss", math.nan), entry["images_per_second"]
            bar.update(task, completed=done, said=f"loss {loss:.3f}  {speed:,.0f} images/s")
            meter = _Meter(shapes=meter.shapes)
        if done % plan.evaluate_every == 0 or last:
            metrics = session.evaluate(session.state)
            log.write(step=done, **metrics)
            meter.restart()
        if done % plan.checkpoint_every == 0 or last or stop or metrics:
            losses = jax.device_get(meter.losses)
            session.data_state = {
                **session.data_state,
                "batches": done,
                "unlogged": [(float(loss), int(count)) for loss, count in losses],
                "unreadable": list(session.unreadable),
                "metrics": dict(metrics) if metrics else None,
            }
            score = metrics[session.job.task.metrics[0]] if metrics else None
            session.checkpoints.save(session.state, session.data_state, score)
        if stop:
            break
    bar.remove_task(task)
    return metrics


def _prefetched(session: Session) -> Iterator[dict[str, jax.Array]]:
    """The batches on the devices, copied there before their step."""
    sent = collections.deque()
    for batch in session.batches:
        session.unreadable.note(batch)
        arrays = {name: value for name, value in batch.items() if name not in ("index", "mask")}
        sent.append(place_batch(arrays, session.job.runtime.mesh))
        if len(sent) == PREFETCH:
            yield sent.popleft()


class _Meter:
    """What the steps since the last line of the log took and gave.

    Attributes:
      losses: of each step its loss, and how many were skipped in a row up to it.
      shapes: of all batches so far, for each of which the step is compiled.
    """

    def __init__(self, losses: Iterable[tuple[Any, Any]] = (), shapes: Iterable[tuple] = ()):
        self.losses, self.shapes = list(losses), set(shapes)
        self.restart()

    def restart(self) -> None:
        """Count images and seconds from here on."""
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0

    def next(self, batches: Iterator[dict[str, jax.Array]]) -> dict[str, jax.Array]:
        """The next batch, counted."""
        asked = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - asked
        self._images += len(batch["image"])
        self.shapes.add(tuple(sorted((name, rows.shape) for name, rows in batch.items())))
        return batch

    def entry(self, session: Session, done: int, grad_norm: jax.Array) -> dict[str, Any]:
        """The line of the log after `done` steps. Raises ValueError as `fit`."""
        entry = _summary(jax.device_get(self.losses), done, session.plan)
        seconds = time.perf_counter() - self._since
        entry |= {
            "epoch": done / session.plan.per_epoch,
            "lr": float(session.rate(done - 1)),
            "grad_norm": float(grad_norm),
            "images_per_second": self._images / seconds,
            "waiting": self._waited / seconds,
            "shapes": len(self.shapes),
            "unreadable": len(session.unreadable),
        }
        if names := session.unreadable.new_names():
            entry["unreadable_photos"] = names
        return entry


def _summary(losses: list[tuple[Any, Any]], done: int, plan: Plan) -> dict[str, Any]:
    """Mean loss of the steps that counted, and how many did not.

    Raises:
      ValueError: too many in a row did not.
    """
    for number, (loss, in_a_row) in enumerate(losses, start=done - len(losses) + 1):
        if in_a_row > plan.max_skipped:
            raise ValueError(
                f"Loss or gradients were not finite in {in_a_row} steps in a row; the last is step "
                f"{number}, {plan.batch(number)}, with loss {loss}. Lower --optim.lr or "
                "--optim.clip, or allow more with --optim.max-skipped."
            )
    counted = [float(loss) for loss, in_a_row in losses if in_a_row == 0]
    entry: dict[str, Any] = {"skipped": len(losses) - len(counted)}
    if counted:
        entry["loss"] = float(np.mean(counted))
    return entry

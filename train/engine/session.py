"""The objects of a run: the job, what is planned, and the training that is under way."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from ssmjax.weights import Metadata, save_weights
from train.data.prefetch import Batch
from train.data.unreadable import Unreadable
from train.engine import optim
from train.engine.checkpoint import Checkpoints
from train.engine.interrupt import Interrupt
from train.engine.kept import Kept
from train.engine.learner import check_parts, learner_of
from train.engine.log import Log, Sink, read_log
from train.engine.profile import Trace
from train.engine.step import Step, TrainState
from train.engine.task import Model, Split, Task
from train.hosts.devices import whole
from train.hosts.runtime import Runtime

RAW = "raw_"  # Begins the name of a metric of the parameters that are not averaged.

Metrics = Mapping[str, float]  # By name; of a task, with `RAW` before it too.


@dataclasses.dataclass
class Job:
    """A task with its data opened, and where it is carried out.

    Attributes:
      task: what is learned.
      train_split: what to train on.
      eval_split: what to measure on.
      metadata: of the model, for the normalisation, and for weight files.
      runtime: devices, processes, progress.
      workdir: the folder of log, checkpoints, weights and results.
      kept: what earlier starts of the same job have measured, in the workdir's `measured.json`.
    """

    task: Task
    train_split: Split
    eval_split: Split
    metadata: Metadata
    runtime: Runtime
    workdir: Path
    kept: Kept = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.kept = Kept(self.workdir / "measured.json")

    def measure(self, model: Model, title: str) -> dict[str, float]:
        """Every metric of a model; the main one is printed under a title as soon as it is known."""
        scores = self.task.score(model, self.eval_split, self.metadata, self.runtime, title)
        metrics = dict(scores.metrics)
        self.runtime.say(f"{title}: {100 * metrics[self.task.metrics[0]]:.2f}%")
        return metrics


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


@dataclasses.dataclass
class Session:
    """A training that is under way: all that `train.engine.loop.fit` works with.

    Attributes:
      job: whose model is trained.
      plan: how long, and what happens when.
      state: of the steps that are done; its buffers are donated to the next one.
      step: from `train.engine.step.make_train_step`.
      rate: learning rate by the number of steps before.
      batches: endless, the first one that of the step after the state's.
      evaluate: the metrics of a state.
      log: gets what the steps give, and what `evaluate` gives.
      checkpoints: where the state is saved, together with the data state.
      unreadable: takes note of each batch.
      interrupt: asked after each step.
      trace: entered for each step.
      data_state: what the checkpoint of `state` says beside it, empty without one; entries that
        the loop does not know go into the checkpoints that follow.
    """

    job: Job
    plan: Plan
    state: TrainState
    step: Step
    rate: Callable[[int], Any]
    batches: Iterator[Batch]
    evaluate: Callable[[TrainState], Metrics]
    log: Log
    checkpoints: Checkpoints
    unreadable: Unreadable
    interrupt: Interrupt
    trace: Trace
    data_state: dict[str, Any] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def open_session(
    job: Job, model: Model, sinks: Sequence[Sink] = (), trace: Path | None = None
) -> Iterator[Session]:
    """A training that is ready for its next step, after the workdir's newest sound checkpoint.

    Args:
      job: says how and on what to train.
      model: where to start, pruned as it shall be; its arrays stay as they are.
      sinks: get what the log gets.
      trace: folder for a trace of a few steps.

    Raises:
      ValueError: an impossible setting, a checkpoint of another model, or one that cannot be read
        or, at the end, written.
    """
    task, runtime, split = job.task, job.runtime, job.train_split
    config, chosen = task.config, task.config.optim
    check_parts(chosen, runtime.mesh)
    steps_per_epoch = task.steps_per_epoch(split)
    plan = Plan(
        total=optim.total_steps(chosen, steps_per_epoch),
        per_epoch=steps_per_epoch,
        evaluate_every=steps_per_epoch * config.evaluate_every,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        max_skipped=chosen.max_skipped,
    )
    learner = learner_of(task, model, job.metadata, steps_per_epoch)
    state, step = learner.start(runtime.mesh, runtime.fsdp)
    checkpoints = Checkpoints(job.workdir, keep=config.keep_checkpoints)
    restored, data_state = checkpoints.restore(state, runtime.say), {}
    if restored is not None:
        state, data_state = restored
        runtime.say(f"going on from step {int(state.step)}")
    done = int(state.step)
    raw = [RAW + name for name in task.metrics] if chosen.ema is not None else []
    log = Log(job.workdir, done, (*task.metrics, *raw), sinks)
    limit = getattr(config.data, "max_unreadable", 0)
    known = data_state.get("unreadable", ())
    with Interrupt() as interrupt, Trace(trace, done) as traced:
        yield Session(
            job=job,
            plan=plan,
            state=state,
            step=step,
            rate=learner.rate,
            batches=task.train_batches(split, model, job.metadata, done, runtime),
            evaluate=_evaluation(job, model, log),
            log=log,
            checkpoints=checkpoints,
            unreadable=Unreadable(split, limit, runtime.progress.console, known),
            interrupt=interrupt,
            trace=traced,
            data_state=data_state,
        )
    checkpoints.close()
    log.close()


def _evaluation(job: Job, model: Model, log: Log) -> Callable[[TrainState], Metrics]:
    """What measures a state, and saves the weights of one that is better than all in the log.

    Where parameters are averaged it measures the average, by whose main metric one is better,
    and then the raw ones.
    """
    main, mesh = job.task.metrics[0], job.runtime.mesh
    graphdef, _, _, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)

    def model_of(params: nnx.State, state: TrainState) -> Model:
        return nnx.merge(graphdef, *whole((params, state.statistics), mesh), others)

    def evaluate(state: TrainState) -> Metrics:
        average, title = model_of(state.averaged, state), f"step {int(state.step)}"
        metrics = job.measure(average, title)
        if job.runtime.first:
            best = max((e[main] for e in read_log(log.path) if main in e), default=-math.inf)
            if metrics[main] > best:
                save_weights(job.workdir / "best.safetensors", average, job.metadata)
        if job.task.config.optim.ema is not None:
            found = job.measure(model_of(state.params, state), f"{title}, not averaged")
            metrics |= {RAW + name: value for name, value in found.items()}
        return metrics

    return evaluate

"""Checkpoints on orbax: the training state and the place in the data, together and atomic."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from train.step import TrainState


class Checkpoints:
    """The newest checkpoints of one run and its best one, in `workdir/checkpoints`.

    With several processes, all call everything alike, on one folder that they share.
    """

    def __init__(self, workdir: Path, *, keep: int = 2):
        """Open the folder; what a killed run left unfinished there is deleted.

        Args:
          workdir: of the run.
          keep: how many of the newest stay, beside the one of the highest accuracy.

        Raises:
          ValueError: the folder cannot be written.
        """
        self._folder = (workdir / "checkpoints").absolute()
        best = BestN(get_metric_fn=_accuracy, n=1)
        options = ocp.CheckpointManagerOptions(
            best_fn=_accuracy,
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )
        with self._writing():
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def newest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, place: dict[str, Any], accuracy: float | None = None) -> None:
        """Write a checkpoint of a step later than the newest; returns before the disk is done.

        Args:
          state: of which nothing is needed any more when this returns.
          place: where the run stands beside its state, as JSON has it.
          accuracy: of the state, where it was measured.

        Raises:
          ValueError: this checkpoint or the one before cannot be written.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_by_name(state)),  # pyright: ignore[reportCallIssue]
            place=ocp.args.JsonSave(place),  # pyright: ignore[reportCallIssue]
        )
        with self._writing():
            self._manager.save(
                int(state.step), args=args, metrics={"accuracy": accuracy}, force=True
            )

    def restore(
        self, state: TrainState, report: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any]]:
        """The newest sound checkpoint; damaged ones that are newer are reported and deleted.

        Args:
          state: of the shapes, dtypes and shardings to restore to; its values are not used.
          report: gets a sentence for each damaged checkpoint.

        Returns:
          The state, and the place as it was saved.

        Raises:
          ValueError: no checkpoint is sound, or one is of another model or optimiser.
        """
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            restored = self._read(step, state, report)
            if restored is not None:
                for newer in damaged:
                    self._manager.delete(newer)
                return restored
            damaged.append(step)
        raise ValueError(
            f"No checkpoint in {self._folder} can be read; delete that folder to begin anew, or "
            "choose another --workdir."
        )

    def close(self) -> None:
        """Wait for the writing to end.

        Raises:
          ValueError: the last checkpoint cannot be written.
        """
        with self._writing():
            self._manager.close()

    def _read(
        self, step: int, state: TrainState, report: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """One checkpoint, or None where a process finds it damaged."""
        folder, named = self._folder / str(step), _by_name(state)
        # Each process reads alone: one that fails where others do not would leave them waiting.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"process_{jax.process_index()}",
        )
        arrays = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        try:
            stored, reason = arrays.metadata(folder / "state").tree, ""
        except Exception as error:
            return None

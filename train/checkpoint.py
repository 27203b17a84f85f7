"""Checkpoints on orbax: the training state and the place in the data, together and atomic."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from train.step import TrainState


class Checkpoints:
    """The newest checkpoints of one run, in `workdir/checkpoints`."""

    def __init__(self, workdir: Path, *, keep: int = 2):
        self._folder = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def newest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Write the state and the place in the data; returns before the disk is done.

        Raises:
          ValueError: the disk is full or not writable.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_by_name(state)),  # pyright: ignore[reportCallIssue]
            data=ocp.args.JsonSave(data_state),  # pyright: ignore[reportCallIssue]
        )
        try:
            self._manager.save(int(state.step), args=args)
        except OSError as error:
            raise ValueError(f"Cannot write a checkpoint to {self._folder}: {error}.") from error

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint, laid out as `state`, and the data iterator's state.

        Raises:
          ValueError: the checkpoint is damaged, or of another model or optimiser.
        """
        named = _by_name(state)
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, named)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(shapes),  # pyright: ignore[reportCallIssue]
            data=ocp.args.JsonRestore(),  # pyright: ignore[reportCallIssue]
        )
        step = self.newest
        try:
            restored = self._manager.restore(step, args=args)
            arrays = [restored["state"][name] for name in named]
            for array, (name, wanted) in zip(arrays, named.items(), strict=True):
                if array.shape != wanted.shape:
                    raise ValueError(f"{name} is {array.shape}, not {wanted.shape}")
        except Exception as error:  # Orbax lets through whatever the storage below it raises.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"The checkpoint {self._folder / str(step)} cannot be restored ({reason[:200]}); "
                "delete that folder to go on from the one before, or choose another --workdir."
            ) from error
        structure = jax.tree.structure(state)
        return jax.tree.unflatten(structure, arrays), restored["data"]

    def close(self) -> None:
        """Wait for the writing to end."""
        self._manager.wait_until_finished()
        self._manager.close()


def _by_name(state: TrainState) -> dict[str, jax.Array]:
    """{path: array}: a plain layout on disk, whatever the classes in memory."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}

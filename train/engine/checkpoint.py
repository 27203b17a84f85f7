"""Checkpoints on orbax: the training state and the data state, together and atomic."""

import atexit
import contextlib
import errno
import functools
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from train.data.fetching.fetch import sha256_of
from train.engine.step import TrainState

# A checkpoint's folder has three parts: "state", "place" (the data state), and this record of its
# score and a digest of every file. Orbax alone takes numbers that have changed on the disk for what
# was saved.
_RECORD = "record.json"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)  # A damaged record.


class Checkpoints:
    """The newest checkpoints of one run and its best one, in `workdir/checkpoints`.

    With several processes, all call everything alike, on one folder that they share.
    """

    def __init__(self, workdir: Path, *, keep: int = 2):
        """Open the folder; what a killed run left unfinished there is deleted.

        Args:
          workdir: of the run; made when missing.
          keep: how many of the newest stay, beside the one of the highest score.

        Raises:
          ValueError: the folder cannot be written.
        """
        self._folder = (workdir / "checkpoints").absolute()
        self._scores: dict[int, float] = {}
        self._saving = -1  # The step that is being written.
        _tell_errors_once()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), _Best(self._scores)]),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_record),
        )
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()  # Refused now rather than hours later.
            if jax.process_index() == 0:
                for leftover in self._folder.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(leftover)
            self._manager = ocp.CheckpointManager(_plain(self._folder), options=options)
        for step in self._manager.all_steps():
            with contextlib.suppress(*_UNREADABLE):  # `restore` says so.
                self._note_score(step, self._read_record(step)["score"])

    def save(
        self, state: TrainState, data_state: dict[str, Any], score: float | None = None
    ) -> None:
        """Write a checkpoint of a step later than the newest; returns before the disk is done.

        Args:
          state: of which nothing is needed any more when this returns.
          data_state: where the run is in its data and its log, as JSON has it.
          score: of the state, where it was measured; more is better.

        Raises:
          ValueError: this checkpoint or the one before cannot be written.
        """
        named = _by_name(state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(named),  # pyright: ignore[reportCallIssue]
            place=ocp.args.JsonSave(data_state),  # pyright: ignore[reportCallIssue]
        )
        with self._writing():
            self._manager.wait_until_finished()
            needed = sum(array.nbytes for array in named.values())
            free = shutil.disk_usage(self._folder).free
            if free < needed:
                raise OSError(errno.ENOSPC, f"{needed:,} bytes needed, {free:,} free")
            self._saving = int(state.step)
            self._note_score(self._saving, score)
            self._manager.save(self._saving, args=args, force=True)

    def restore(
        self, state: TrainState, report: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest sound checkpoint; damaged ones after it are reported and deleted.

        Args:
          state: has the shapes, dtypes and shardings to restore to; its values are not used.
          report: gets a sentence about each damaged checkpoint, in process 0.

        Returns:
          The state, and the data state as it was saved; None where no checkpoint is.

        Raises:
          ValueError: no checkpoint is sound, or the newest sound one is of another model or
            optimiser.
        """
        damaged = []
        for step in reversed(self._manager.all_steps()):
            if self._is_sound(step, report):
                restored = self._read(step, state)
                for newer in damaged:
                    self._manager.delete(newer)
                return restored
            damaged.append(step)
        if damaged:
            raise ValueError(
                f"No checkpoint in {self._folder} is sound; delete that folder to begin anew, or "
                "choose another --workdir."
            )
        return None

    def close(self) -> None:
        """Wait for the writing to end.

        Raises:
          ValueError: the last checkpoint cannot be written.
        """
        with self._writing():
            self._manager.close()

    def _is_sound(self, step: int, report: Callable[[str], None]) -> bool:
        """Whether the files are what was written, as process 0 finds."""
        fault = self._fault(step) if jax.process_index() == 0 else ""
        if fault:
            folder = self._folder / str(step)
            report(f"The checkpoint {folder} is damaged ({fault}); trying the one before it.")
        return bool(multihost_utils.broadcast_one_to_all(jnp.bool_(not fault)))

    def _fault(self, step: int) -> str:
        """What is wrong with a checkpoint's files; nothing where they are as they were written."""
        try:
            written, found = self._read_record(step)["digests"], _digests(self._folder / str(step))
            names = [n for n in written.keys() | found.keys() if written.get(n) != found.get(n)]
        except _UNREADABLE as error:
            return f"{_RECORD} cannot be read: {_reason(error)}"
        return f"{min(names)} is missing or was changed" if names else ""

    def _read(self, step: int, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        folder, named = self._folder / str(step), _by_name(state)
        expected = jax.tree.map(ocp.utils.to_shape_dtype_struct, named)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(expected),  # pyright: ignore[reportCallIssue]
            place=ocp.args.JsonRestore(),  # pyright: ignore[reportCallIssue]
        )
        try:
            handler = ocp.StandardCheckpointHandler()
            stored = handler.metadata(folder / "state").tree  # pyright: ignore[reportArgumentType]
            difference = _difference(stored, expected)
            restored = None if difference else self._manager.restore(step, args=args)
        except Exception as error:  # Orbax lets through whatever the storage below it raises.
            raise ValueError(
                f"The checkpoint {folder} cannot be read ({_reason(error)})."
            ) from error
        if restored is None:
            raise ValueError(
                f"The checkpoint {folder} is of another model or optimiser ({difference}); go on "
                "with the config it was made with, or choose another --workdir."
            )
        arrays = [restored["state"][name] for name in named]
        return jax.tree.unflatten(jax.tree.structure(state), arrays), restored["place"]

    def _note_score(self, step: int, score: float | None) -> None:
        if score is not None:
            self._scores[step] = score

    def _read_record(self, step: int) -> dict[str, Any]:
        return json.loads((self._folder / str(step) / _RECORD).read_text())

    def _write_record(self) -> None:
        """What orbax calls when all files are written, before the folder gets its final name."""
        if jax.process_index() == 0:
            (folder,) = self._folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")
            score = self._scores.get(self._saving)
            record = {"score": score, "digests": _digests(folder)}
            (folder / _RECORD).write_text(json.dumps(record))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax lets through whatever the storage below it raises.
            raise ValueError(
                f"Cannot write a checkpoint to {self._folder} ({_reason(error)}); mend that, and "
                "go on with --resume auto."
            ) from error


class _Best:
    """Orbax's policy of what to keep: the checkpoint of the highest score, the later of two."""

    def __init__(self, scores: dict[int, float]):
        self._scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        scored = {c.step: self._scores.get(c.step, -1.0) for c in checkpoints}
        best = max(scored, key=lambda step: (scored[step], step), default=None)
        return [checkpoint.step == best for checkpoint in checkpoints]


@functools.cache
def _tell_errors_once() -> None:
    """Orbax logs each error with the stacks of its threads before it raises it; not from here on.

    Nor is it logged that nobody waits any more for a write that ends after another has failed.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def quiet(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = quiet


def _by_name(state: TrainState) -> dict[str, jax.Array]:
    """{path: array}: a plain layout on disk, whatever the classes in memory."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _difference(stored: dict[str, Any], expected: dict[str, jax.ShapeDtypeStruct]) -> str:
    """The first difference of names, shapes or dtypes in words; nothing where there is none."""
    for name in sorted(stored.keys() | expected.keys()):
        if name not in stored or name not in expected:
            return f"{name} is only {'here' if name in expected else 'there'}"
        there, here = (f"{x.dtype}{list(x.shape)}" for x in (stored[name], _raw(expected[name])))
        if there != here:
            return f"{name} is {there} there and {here} here"
    return ""


def _raw(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """An array as it is stored: a random key is integers on the disk."""
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.eval_shape(jax.random.key_data, array) if is_key else array


def _plain(folder: Path) -> Path:
    """The folder by a path that is no pattern: orbax looks for its files by `glob`.

    Brackets in it would be one, so it gets a link, of one name in all processes, until the end.
    """
    if glob.escape(str(folder)) == str(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    link = Path(tempfile.gettempdir(), f"ssmjax-checkpoints-{digest}")
    with contextlib.suppress(FileExistsError):  # Another process of the run was first.
        link.symlink_to(folder)
        atexit.register(link.unlink, missing_ok=True)
    return link


def _digests(folder: Path) -> dict[str, str]:
    """{path: SHA-256} of the files that hold the run; orbax goes on writing its own, beside."""
    paths = sorted(p for item in ("state", "place") for p in (folder / item).rglob("*"))
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in paths if p.is_file()}


def _reason(error: Exception) -> str:
    """What an error says, short: as the operating system does, if it began there."""
    number = re.search(r"os_error_code='(\d+)'", str(error))  # As tensorstore puts it.
    if number:
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

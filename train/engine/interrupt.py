"""SIGTERM, which schedulers send before they kill, asks a run to stop after a step."""

import signal

import jax
from jax.experimental import multihost_utils


class Interrupt:
    """While it is entered, SIGTERM is noted and nothing more; before and after it does as always.

    SIGINT (Ctrl-C) stays as it is: it stops at once.

    With several processes, jax notes the signal from `train.hosts.devices.start_distributed`
    on, and has them agree on a step that none has passed yet.
    """

    def __init__(self) -> None:
        self._noted = False
        self._distributed = jax.process_count() > 1

    def requested(self, step: int) -> bool:
        """Whether to stop after `step` steps, in all processes alike; each asks after each step."""
        if self._distributed:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._noted

    def __enter__(self) -> "Interrupt":
        if not self._distributed:  # A handler from here would take the place of jax's own.
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_) -> None:
        if not self._distributed:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, *_) -> None:
        self._noted = True

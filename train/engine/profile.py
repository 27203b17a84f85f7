"""`--profile`: a trace of a few steps."""

import contextlib
from pathlib import Path

import jax

FIRST, LAST = 10, 20  # Steps of the run that are traced, from 0; the first ones compile.


class Trace:
    """Traces steps to a folder for XProf and Perfetto; None traces nothing."""

    def __init__(self, folder: Path | None, start: int):
        """For a run that begins or goes on with step `start`."""
        self._folder, self._first, self._last = folder, start + FIRST, start + LAST
        self._begun = False

    @contextlib.contextmanager
    def step(self, number: int):
        """Around step `number`, from 0."""
        if self._folder and number == self._first:
            jax.profiler.start_trace(self._folder)
            self._begun = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self._last:
            self.__exit__()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_) -> None:
        """Write the trace of a run that ends before all steps are traced."""
        if self._begun:
            jax.profiler.stop_trace()
            self._begun = False

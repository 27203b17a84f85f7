"""Speed and memory of inference, of the models of any task, for noise in place of photos."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from kernels.timing import medians
from train.engine.task import Model, Task

ROUNDS = 11  # Measurements of a model, whose median is taken.


def images_per_second(task: Task, models: Sequence[Model]) -> list[float]:
    """Images/s of each model: medians, synchronised, of models that take turns in this process."""
    runs = {
        number: partial(run, *arguments)
        for number, (run, arguments) in enumerate(map(task.inference, models))
    }
    batch_size = task.config.eval_batch_size
    return [batch_size / seconds for seconds in medians(runs, ROUNDS).values()]


def peak_memory(task: Task, model: Model) -> int:
    """Bytes that inference needs at its peak: parameters, images, results and temporary arrays.

    By the compiled program's own account, on every device: what an accelerator counts at run time
    is the largest of all that the process ever did, and cannot tell one model from another. What
    `images_per_second` compiled is not compiled again.
    """
    run, arguments = task.inference(model)
    needed: Any = run.lower(*arguments).compile().memory_analysis()
    return needed.argument_size_in_bytes + needed.output_size_in_bytes + needed.temp_size_in_bytes

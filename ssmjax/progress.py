"""How far long work is, as lines of text, where no terminal could show bars."""

import time
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

EVERY = 30.0  # Seconds between the lines of what tells nothing but how far it is.


class Lines(Progress):
    """Progress in plain lines: one each time that a task has something new in its field `said`.

    Of a task that says nothing there is one every `EVERY` seconds.
    """

    def __init__(self, console: Console):
        """The console is one that writes to a file or a pipe."""
        super().__init__(console=console, disable=True)
        self._begun: dict[TaskID, tuple[float, float]] = {}
        self._printed: dict[TaskID, float] = {}

    def add_task(self, *arguments: Any, **options: Any) -> TaskID:
        """As rich's."""
        number, now = super().add_task(*arguments, **options), time.monotonic()
        self._begun[number] = now, self._tasks[number].completed
        self._printed[number] = now
        return number

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's, and perhaps a line."""
        super().update(task_id, **changes)
        self._tell(task_id, "said" in changes)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's, and perhaps a line."""
        super().advance(task_id, advance)
        self._tell(task_id, False)

    def _tell(self, number: TaskID, always: bool) -> None:
        now = time.monotonic()
        if not always and now - self._printed[number] < EVERY:
            return
        self._printed[number] = now
        begun, already = self._begun[number]
        line = _line(self._tasks[number], now - begun, already)
        self.console.print(Text(line), soft_wrap=True)


class Said(ProgressColumn):
    """The field `said` of a task, beside its bar."""

    def render(self, task: Task) -> Text:
        """The field, as it is."""
        return Text(task.fields.get("said", ""))


def _line(task: Task, seconds: float, already: float) -> str:
    """How far a task is, so many seconds after it had done what it had `already`."""
    done, of = task.completed - already, "" if task.total is None else f" of {task.total:,.0f}"
    words = [f"{task.description} {task.completed:,.0f}{of}", task.fields.get("said", "")]
    if task.total is not None and done > 0:
        words.append(f"{_duration((task.total - task.completed) * seconds / done)} left")
    return "  ".join(filter(None, words))


def _duration(seconds: float) -> str:
    """In two units at most, such as "3 h 20 min"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

"""What a run has at hand: devices, processes, and where progress is shown."""

import dataclasses

import jax
from rich.progress import Progress
from rich.text import Text

from ssmjax import terminal


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Handed to everything that computes, reads photos or prints something for people.

    Attributes:
      mesh: all devices, along one axis "data".
      progress: bars or lines that show how far it is; silent but in the first process.
      workers: processes that read photos, of each process; 0 is threads.
      fsdp: whether parameters and optimiser state are spread over the devices.
    """

    mesh: jax.sharding.Mesh
    progress: Progress
    workers: int = 0
    fsdp: bool = False

    @property
    def process(self) -> tuple[int, int]:
        """Number of this process, and how many there are."""
        return jax.process_index(), jax.process_count()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return jax.process_index() == 0

    def say(self, sentence: str) -> None:
        """Print a sentence for people, as it stands and on one line."""
        self.progress.console.print(Text(terminal.printable(sentence)), soft_wrap=True)


def bars() -> Progress:
    """What shows how far each task is and how long it takes; silent but in the first process."""
    return terminal.progress(terminal.console(stderr=True, quiet=jax.process_index() > 0))

"""Prefetched batches, each made from its number, on `grain`."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import grain
import numpy as np
from absl import flags

from train.data.fetching.fetch import DataError

Batch = dict[str, np.ndarray]

LAST = 2**62  # Of the training batches' numbers: never reached.

# Two threads prefetch batches; they rest while these four wait for the training step.
_THREADS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
_NO_THREADS = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # A worker is one itself.
_WORKER_AHEAD = 2  # Batches that wait, from each worker.
# grain would hand batches over in shared memory, of which containers have little, and which it
# leaves behind when a worker fails.
_PIPES = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)


def prefetched(
    make: Callable[[int], Batch], first: int, last: int, workers: int
) -> Iterator[Batch]:
    """What `make` makes of the numbers from `first` to before `last`, in order.

    Args:
      make: a picklable function of the number alone.
      first, last: numbers.
      workers: processes that make them, which end with the iterator; 0 is threads of this one.

    Raises:
      DataError: what `make` raises; a worker has failed.
    """
    batches = grain.MapDataset.range(first, last).map(make)
    if workers:
        if not flags.FLAGS.is_parsed():  # Else grain's workers do not start outside absl's `app`.
            flags.FLAGS.mark_as_parsed()
        piped = grain.experimental.WithOptionsIterDataset(
            batches.to_iter_dataset(_NO_THREADS), _PIPES
        )
        prepared = piped.mp_prefetch(
            grain.MultiprocessingOptions(workers, per_worker_buffer_size=_WORKER_AHEAD),
            worker_init_fn=_start_worker,
        )
    else:
        prepared = batches.to_iter_dataset(_THREADS)
    with contextlib.closing(iter(prepared)) as iterator:
        try:
            yield from iterator
        except DataError as error:  # grain adds lines of its own to the message.
            raise DataError(str(error).splitlines()[0]) from error
        except RuntimeError as error:
            if not workers:
                raise
            raise DataError(
                f"A process that prepares photos has failed ({error}); if memory ran out, take "
                "fewer workers."
            ) from error


def own_rows(batch_size: int, process: tuple[int, int]) -> range:
    """The rows of every batch, of all processes together, that are a process' own.

    Raises:
      ValueError: the batch cannot be shared out evenly.
    """
    number, count = process
    if batch_size < 1 or batch_size % count:
        raise ValueError(
            f"The batch size is {batch_size}; it must be a multiple of the {count} processes."
        )
    share = batch_size // count
    return range(number * share, (number + 1) * share)


def _start_worker(worker: int, workers: int) -> None:
    """Make the life of a worker process depend on the one that trains, and on that alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

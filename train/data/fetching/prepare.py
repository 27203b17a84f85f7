"""Preparing a TFDS data set in one piece, whatever interrupts it."""

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import tensorflow_datasets as tfds
from absl import logging

from train.data.fetching.fetch import writing_into

Builder = TypeVar("Builder", bound=tfds.core.DatasetBuilder)


def prepared(make_builder: Callable[[], Builder], data_dir: Path) -> Builder:
    """The builder that `make_builder` makes, with its data set prepared under `data_dir`.

    A call that fails or is killed leaves no partial data set: the next one starts clean. A second
    process that wants a data set in the same folder waits for the first.

    Raises:
        DataError: the disk is full or not writable, and what the builder raises.
    """
    # TFDS' own notices (no such data set yet, preparing it) would only unsettle people.
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    builder = make_builder()
    if builder.is_prepared():
        return builder
    with writing_into(data_dir), contextlib.redirect_stdout(io.StringIO()):
        for leftover in Path(builder.data_path).parent.glob("incomplete.*"):
            shutil.rmtree(leftover)
        # Built again: another process may have prepared it while this one waited.
        builder = make_builder()
        if not builder.is_prepared():
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    return builder

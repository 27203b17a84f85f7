"""Random access to TFRecord files, which TFDS reads with TensorFlow only.

A record is its length (8 bytes, little-endian), the length's checksum (4 bytes), its bytes and
their checksum (4 bytes). The checksums are not compared: a wrong length leads out of the file or
to another number of records than the data set says, and a damaged photo does not decode.
"""

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow_datasets.core.data_sources.base import BaseDataSource, file_instructions
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from ssmjax.terminal import track
from train.data.fetching.fetch import DataError

_HEADER, _FOOTER = 12, 4  # Bytes around those of a record.


@dataclass(repr=False)
class TFRecordDataSource(BaseDataSource):
    """The examples of a split that is stored as TFRecord files, as TFDS' own data sources.

    Raises:
        DataError: a damaged or missing file.
    """

    def __post_init__(self) -> None:
        records: Any = Records(file_instructions(self.dataset_info, self.split))
        self.data_source = records


class Records:
    """The records of some TFRecord files, as bytes, by number.

    Opening reads the lengths of all records, and none of their bytes. Files are opened at each
    read, so it can be used by many threads, pickled, and the number of files has no limit.

    Raises:
        DataError: a damaged or missing file.
    """

    def __init__(self, instructions: Sequence[FileInstruction]) -> None:
        self._files = [os.fspath(each.filename) for each in instructions]
        with ThreadPoolExecutor(16) as pool:  # Waiting for the disk is most of it.
            read = pool.map(_places, instructions)
            places = list(track(read, "Reading the lengths of the records", len(self._files)))
        self._file_of = np.repeat(np.arange(len(places)), [len(each) for each in places])
        self._places = np.concatenate(places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: int) -> bytes:
        start, length = self._places[key].tolist()
        path = self._files[self._file_of[key]]
        try:
            with open(path, "rb", buffering=0) as file:
                record = os.pread(file.fileno(), length, start)
        except OSError as error:
            raise _damaged(path, f"it cannot be read any more ({error.strerror})") from error
        if len(record) < length:
            raise _damaged(path, f"it ends inside the record at byte {start:,}")
        return record

    def __getitems__(self, keys: Sequence[int]) -> list[bytes]:
        return [self[key] for key in keys]


def _places(instruction: FileInstruction) -> np.ndarray:
    """First byte and length of the records that `instruction` takes, int64 of (records, 2)."""
    path, places, end = os.fspath(instruction.filename), [], 0
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while end < size:
                start = end + _HEADER
                header = os.pread(file.fileno(), _HEADER, end)
                room = size - start - _FOOTER
                if room < 0:
                    raise _damaged(path, f"it ends inside the record at byte {end:,}")
                (length,) = struct.unpack_from("<Q", header)
                if length > room:
                    raise _damaged(
                        path,
                        f"the record at byte {end:,} says that it is {length:,} bytes long, where "
                        f"{room:,} are left",
                    )
                places.append((start, length))
                end = start + length + _FOOTER
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error
    if len(places) != instruction.examples_in_shard:
        raise _damaged(
            path,
            f"it has {len(places):,} records, where the data set's description says "
            f"{instruction.examples_in_shard:,}",
        )
    taken = places[instruction.skip : instruction.skip + instruction.take]
    return np.array(taken, np.int64).reshape(-1, 2)


def _damaged(path: str, how: str) -> DataError:
    return DataError(f"The file {path} is damaged: {how}; copy or prepare the data set again.")

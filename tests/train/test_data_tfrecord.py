"""TFRecord files by number, and what is said about damaged ones."""

import pickle
import re
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from train.data.fetching.fetch import DataError
from train.data.sources.tfrecord import Records

RECORDS = [np.random.default_rng(n).bytes(n * 37 % 101) for n in range(40)]  # The first is empty.


def framed(records):
    return b"".join(struct.pack("<QI", len(each), 0) + each + bytes(4) for each in records)


@pytest.fixture
def files(tmp_path):
    """Two files of 25 and 15 records."""
    paths = [tmp_path / "a.tfrecord", tmp_path / "b.tfrecord"]
    for path, records in zip(paths, (RECORDS[:25], RECORDS[25:]), strict=True):
        path.write_bytes(framed(records))
    return paths


def take(path, first, last, count):
    return FileInstruction(str(path), first, last - first, count)


def whole(files):
    return Records([take(files[0], 0, 25, 25), take(files[1], 0, 15, 15)])


def test_records_of_several_files_in_any_order(files):
    records = whole(files)
    assert len(records) == 40
    order = np.random.default_rng(0).permutation(40).tolist()
    assert records.__getitems__(order) == [RECORDS[n] for n in order]


def test_parts_of_files(files):
    records = Records([take(files[1], 5, 9, 15), take(files[0], 20, 25, 25)])
    assert records.__getitems__(range(9)) == RECORDS[30:34] + RECORDS[20:25]


def test_threads_and_copies_for_workers(files):
    records = pickle.loads(pickle.dumps(whole(files)))
    order = np.random.default_rng(1).integers(0, 40, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(records.__getitem__, order)) == [RECORDS[n] for n in order]


def test_more_files_than_a_process_may_open(tmp_path):
    path = tmp_path / "one.tfrecord"
    path.write_bytes(framed(RECORDS[:1]))
    records = Records([take(path, 0, 1, 1)] * 3000)
    assert set(records.__getitems__(range(3000))) == {RECORDS[0]}


DAMAGE = {
    "cut in a record": (lambda content: content[:-20], "says that it is .* bytes long, where"),
    "cut in the header": (lambda content: content + bytes(7), "it ends inside the record at byte"),
    "cut between records": (
        lambda _: framed(RECORDS[25:35]),
        "it has 10 records, where the data set's description says 15",
    ),
    "a length beyond the end": (
        lambda content: struct.pack("<Q", 2**60) + content[8:],
        "at byte 0 says that it is 1,152,921,504,606,846,976 bytes long",
    ),
    "a negative length": (
        lambda content: struct.pack("<q", -1) + content[8:],
        "says that it is 18,446,744,073,709,551,615 bytes",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_file(files, damage, said):
    files[1].write_bytes(damage(files[1].read_bytes()))
    with pytest.raises(DataError, match=f"{re.escape(str(files[1]))} is damaged: .*{said}"):
        whole(files)


def test_missing_file(files):
    files[0].unlink()
    with pytest.raises(DataError, match=f"{re.escape(str(files[0]))} .*No such file"):
        whole(files)


def test_file_cut_or_deleted_while_in_use(files):
    records = whole(files)
    files[0].write_bytes(files[0].read_bytes()[:100])
    with pytest.raises(DataError, match=r"a.tfrecord is damaged: it ends inside the record"):
        records[24]
    files[1].unlink()
    with pytest.raises(DataError, match=r"b.tfrecord is damaged: it cannot be read any more"):
        records[25]

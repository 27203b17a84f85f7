"""Photos that cannot be read are named, counted once, and too many stop the run."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from ssmjax.preprocess import PLAIN
from ssmjax.weights import Metadata
from train.config import Config, DataConfig
from train.data.fetching.fetch import DataError
from train.data.sources.source import Split
from train.data.unreadable import Unreadable
from train.hosts.devices import make_mesh
from train.hosts.runtime import Runtime, bars
from train.tasks.classification import task as classify


class Named:
    """Examples that carry file names."""

    def __len__(self):
        return 10

    def __getitems__(self, keys):
        return [{"image": b"", "label": 0, "file_name": f"{key}.jpg"} for key in keys]


SPLIT = Split(Named(), ("a",), 'photos, split "train"')


def batch(index, mask):
    return {"index": np.array(index), "mask": np.array(mask)}


def test_each_is_named_once_and_fillers_are_none():
    console = Console(record=True, quiet=False, file=open("/dev/null", "w"), width=200)  # noqa: SIM115
    with console.file:
        unreadable = Unreadable(SPLIT, 2, console)
        unreadable.note(batch([3, 4, -1], [True, False, False]))
        unreadable.note(batch([4, 7], [False, False]))
    said = console.export_text().splitlines()
    assert said == [
        f'skipped the unreadable photo {name} of photos, split "train"'
        for name in ("4.jpg", "7.jpg")
    ]
    assert list(unreadable) == [4, 7] and len(unreadable) == 2
    assert unreadable.new_names() == ["4.jpg", "7.jpg"] and unreadable.new_names() == []


def test_more_than_the_limit_stop_the_run():
    unreadable = Unreadable(SPLIT, 1, Console(quiet=True), known=[4])
    unreadable.note(batch([4], [False]))
    with pytest.raises(DataError, match=r"photo 5.jpg of photos.* nor 1 before it.*max-unreadable"):
        unreadable.note(batch([5], [False]))


@pytest.mark.parametrize("name", ["cat/IMG [copy].jpg", "[/].jpg", ":cat:.jpg", "x" * 100 + ".jpg"])
def test_names_are_told_whole(name):
    class OfOneName(Named):
        def __getitems__(self, keys):
            return [{"image": b"", "label": 0, "file_name": name}]

    file = io.StringIO()
    split = Split(OfOneName(), ("a",), "[pets]")
    Unreadable(split, 1, Console(file=file)).note(batch([3], [False]))
    assert file.getvalue() == f"skipped the unreadable photo {name} of [pets]\n"


def test_a_split_without_a_readable_photo_has_no_score(monkeypatch):
    batch = {"image": np.zeros((4, 16, 16, 3), np.uint8), "label": np.zeros(4, np.int32)}
    batch |= {"mask": np.zeros(4, bool), "index": np.arange(4)}
    monkeypatch.setattr(classify, "eval_batches", lambda *_, **__: iter([batch]))
    nothing = {"top1": 0, "top5": 0, "photos": 0}
    monkeypatch.setattr(classify, "count", lambda *_: nothing)
    config = nnx.static(SimpleNamespace(image_shape=(16, 16, 3)))
    metadata = Metadata("", {}, (), PLAIN)
    runtime, data = Runtime(make_mesh(), bars()), DataConfig(max_unreadable=10)
    task = classify.Classify(Config(data=data, eval_batch_size=4), data)
    with pytest.raises(DataError, match=r"No photo of photos, split \"train\" can be read"):
        task.score(nnx.Dict(config=config), SPLIT, metadata, runtime, "")

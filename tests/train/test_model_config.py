"""Which model a run is of: sizes on the command line, and images that photos are not."""

import sys

import pytest

import ssmjax
from ssmjax import imagenet
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, save_weights
from train import cli
from train.config import Config, DataConfig, ModelConfig
from train.data.dense.config import SegmentationData
from train.engine.workdir import open_workdir
from train.hosts.options import RunOptions
from train.tasks.task import open_task

NAME = "vim_tiny_patch16_224"
SIZES = {"depth": 1, "embed_dim": 16, "d_state": 2, "patch_size": 4}


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """The config that options make of a file with square images."""

    def parse(*options, size="16"):
        path = tmp_path / "config.py"
        path.write_text(
            "from train.config import Config, ModelConfig\n"
            f"config = Config(model=ModelConfig(name={NAME!r}, img_size={size}, **{SIZES}))\n"
        )
        command = ["train.finetune", "--config", str(path), "--workdir", "w", *options]
        monkeypatch.setattr(sys, "argv", command)
        return cli.parse(Config, RunOptions, "")[0]

    return parse


@pytest.mark.parametrize("size", ["16", "(16, 24)", "None"])
@pytest.mark.parametrize(
    ("options", "want"), [(["24", "32"], (24, 32)), (["24"], 24), (["None"], None)]
)
def test_image_sizes(parsed, size, options, want):
    chosen = parsed("--model.img-size", *options, "--model.d-state", "3", size=size).model
    assert (chosen.img_size, chosen.d_state, chosen.in_channels) == (want, 3, None)
    assert parsed(size=size).model.img_size == eval(size)
    if want is not None:
        model = ssmjax.create_model(chosen.name, **chosen.overrides())
        height, width = want if isinstance(want, tuple) else (want, want)
        assert model.config.image_shape == (height, width, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.img-size", "x"], "--model.img-size"),
        (["--model.img-size", "16", "2.5"], "--model.img-size"),
        (["--model.in-channels", "x"], "--model.in-channels"),
    ],
)
def test_what_is_no_size(parsed, options, said):
    with pytest.raises(ValueError, match=said) as error:
        parsed(*options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [["1", "2", "3"], ["3", "16"], ["-16", "16"]])
def test_what_is_no_size_of_an_image(parsed, size):
    chosen = parsed("--model.img-size", *size).model
    with pytest.raises(ValueError, match="img_size is"):
        ssmjax.create_model(chosen.name, **chosen.overrides())


def test_a_run_of_oblong_images_goes_on(parsed, tmp_path):
    """Of the file's size or the option's, as numbers in a tuple or in a list."""
    traces = "checkpoints/*"
    open_workdir(tmp_path / "run", parsed("--model.img-size", "16", "24"), "auto", traces)
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    for size in ("(16, 24)", "[16, 24]"):
        open_workdir(tmp_path / "run", parsed(size=size), "auto", traces)
    with pytest.raises(ValueError, match="another config"):
        open_workdir(tmp_path / "run", parsed(size="(24, 16)"), "auto", traces)


@pytest.mark.parametrize("channels", [1, 4])
def test_photos_have_three_channels(parsed, tmp_path, channels):
    config = parsed("--model.in-channels", str(channels))
    assert config.model.in_channels == channels
    with pytest.raises(ValueError, match=f"model.in_channels is {channels}; photos have 3 chan"):
        open_task(config)
    assert open_task(parsed("--model.in-channels", "3")).config.model.in_channels == 3
    model = ssmjax.create_model(NAME, in_channels=channels, num_classes=3, img_size=16, **SIZES)
    overrides, path = config_overrides(NAME, model.config), tmp_path / "a.safetensors"
    save_weights(path, model, Metadata(NAME, overrides, (), imagenet.preprocessing(NAME)))
    for data in (DataConfig(), SegmentationData(path="nowhere")):
        with pytest.raises(ValueError, match=f"a.safetensors is {channels}; photos have 3 channel"):
            open_task(Config(model=ModelConfig(weights=str(path)), data=data))

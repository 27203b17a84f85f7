"""What a config refuses."""

import pytest

from train.config import Config, OptimConfig


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 0}, "optim.epochs is 0"),
        ({"batch_size": -1}, "optim.batch_size is -1"),
        ({"batch_size": 8, "accumulate": 3}, "accumulate is 3; it must divide optim.batch_size, 8"),
        ({"warmup_epochs": 2.0}, "below optim.epochs"),
        ({"ema": 1.0}, "optim.ema is 1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0"),
        ({"clip": 0.0}, "optim.clip is 0.0"),
    ],
)
def test_optimisation(fields, said):
    with pytest.raises(ValueError, match=said):
        OptimConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optim": OptimConfig(distill=0.5)}, "without a model to follow"),
        ({"log_every": 0}, "log_every is 0"),
    ],
)
def test_runs(fields, said):
    with pytest.raises(ValueError, match=said):
        Config(**fields)

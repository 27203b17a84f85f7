"""The recipes of classifiers, through their configs, against the official numbers written apart."""

import math

import chex
import pytest

from tests.train.conftest import ROOT
from train.cli import load_config
from train.compare.config import Comparison
from train.config import Config, DataConfig
from train.engine import optim

PHOTOS = 1_281_167  # Of ImageNet's training split.

# Images on each GPU and GPUs, rate at the start, highest and last, per so many images a step;
# gradient limit, average, drop path, compute dtype, evaluation crop.
OFFICIAL = {
    "vim_tiny": (64, 8, (1e-5, 1e-5, 1e-5), 512, None, 0.99996, None, "float32", 0.875),
    "vim_small": (64, 8, (1e-5, 1e-5, 1e-5), 512, None, 0.99996, None, "float32", 0.875),
    "plainmamba_l1": (256, 8, (2e-8, 2e-5, 2e-7), 512, 5.0, None, 0.2, "bfloat16", 0.875),
    "plainmamba_l2": (256, 8, (2e-8, 2e-5, 2e-7), 512, 1.0, 0.9999, 0.2, "float32", 0.875),
    "plainmamba_l3": (256, 4, (2e-8, 2e-5, 2e-7), 512, 1.0, 0.9999, 0.4, "float32", 0.875),
}
WAYS = ("dense", "evit", "prune")


def rate_at(epoch: float, start: float, peak: float, last: float) -> float:
    """mmcv's: a cosine over 30 epochs, times a linear warm-up over 5; in float64."""
    cosine = last + (peak - last) * (1 + math.cos(math.pi * epoch / 30)) / 2
    ratio = start / peak
    return cosine * (1 - (1 - min(epoch / 5, 1)) * (1 - ratio))


def imagenet(name, way):
    return load_config(str(ROOT / "configs" / f"imagenet_{name}_{way}.py"), Config)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OFFICIAL)
def test_classifiers(name, way):
    images, gpus, rates, per, clip, ema, drop_path, dtype, crop = OFFICIAL[name]
    config = imagenet(name, way)
    assert isinstance(config.data, DataConfig)
    chosen, model, augment = config.optim, config.model, config.data.augment
    batch = images * gpus
    assert (chosen.batch_size, chosen.accumulate, chosen.epochs) == (batch, 1, 30)
    assert (chosen.clip, chosen.ema, chosen.weight_decay) == (clip, ema, 1e-8)
    assert (chosen.b2, chosen.label_smoothing, chosen.distill) == (0.999, 0.1, 0)
    assert (model.drop_path_rate, model.dtype, config.data.crop_pct) == (drop_path, dtype, crop)
    assert (augment.mixup, augment.cutmix, augment.erase, augment.flip) == (0.8, 1.0, 0.25, 0.5)
    assert augment.randaugment == "rand-m9-mstd0.5-inc1" and augment.crop == "random_resized"
    assert augment.repeats == (3 if name.startswith("vim") else 1)
    steps = PHOTOS // batch
    rate = optim.schedule(chosen, steps)
    scaled = [value * batch / per for value in rates]
    epochs = (0, 0.2, 1, 2.5, 4.8, 5, 8, 15, 22.4, 29, 30)
    got = [float(rate(round(epoch * steps))) for epoch in epochs]
    wanted = [rate_at(round(epoch * steps) / steps, *scaled) for epoch in epochs]
    chex.assert_trees_all_close(got, wanted, rtol=2e-5)


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [
        ("plainmamba_l1", 0, 8e-8),
        ("plainmamba_l1", 5, 7.4694e-5),  # Not 8e-5: the cosine has begun.
        ("plainmamba_l2", 30, 8e-7),
        ("plainmamba_l3", 15, 2.02e-5),
        ("vim_small", 15, 1e-5),
    ],
)
def test_rates_by_hand(name, epoch, rate):
    chosen = imagenet(name, "prune").optim
    steps = PHOTOS // chosen.batch_size
    chex.assert_trees_all_close(optim.schedule(chosen, steps)(epoch * steps), rate, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("vim_small_prune", "73.42 78.37 78.30 3.1873 3.0752 2.9728 2.9497"),
        ("vim_tiny_prune", "71.10 74.81 3.5444 3.4924 3.4337 3.4293"),
    ],
)
def test_the_authors_own_logs_stand_beside_what_they_published(name, numbers):
    """Those of the config's own schedule: 5, 10, 15 of Vim-S, and 10, 20 of Vim-T."""
    text = (ROOT / "configs" / f"imagenet_{name}.py").read_text()
    own = text[text.index("Logs:") : text.index("Result:")].split("Other")[0]
    assert all(number in own for number in numbers.split())
    blocks = {"vim_small_prune": (5, 10, 15), "vim_tiny_prune": (10, 20)}[name]
    prune = imagenet(*name.rsplit("_", 1)).prune
    assert prune is not None
    assert (prune.after_blocks, prune.keep_ratio) == (blocks, 0.8)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/imagenet_*_evit.py")), ids=str)
def test_no_open_run_backs_the_evit_rows(path):
    assert "no open run of the authors backs this row" in path.read_text()


@pytest.mark.parametrize("name", ["figure2", "table1", "table3", "table4"])
def test_comparisons_fine_tune_on_parts_of_photos_as_they_evaluate_on_crops(name):
    path = ROOT / "configs" / f"compare_{name}.py"
    data = load_config(str(path), Comparison).data
    assert isinstance(data, DataConfig)
    augment = data.augment
    assert (augment.crop, augment.flip) == ("random_resized", 0.5)


@pytest.mark.parametrize(
    ("name", "methods", "scores"),
    [
        (
            "table4",
            ("none", "previous"),
            {"Vim-S": (75.4, 78.8), "PlainMamba-L3": (79.3, 81.7)},
        ),
        (
            "table1",
            ("EViT way", "aligned"),
            {"Vim-S": (74.8, 78.8), "PlainMamba-L3": (78.9, 81.7)},
        ),
    ],
)
def test_published_scores(name, methods, scores):
    """Without alignment, table 4 prints others than table 1 does of EViT."""
    comparison = load_config(str(ROOT / "configs" / f"compare_{name}.py"), Comparison)
    found = {(e.backbone, e.method): e.published.score for e in comparison.entries}
    for backbone, published in scores.items():
        assert tuple(found[backbone, method] for method in methods) == published

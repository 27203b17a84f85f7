"""How the papers fine-tune on ImageNet-1k, and what was chosen where they say too little.

Official weights, FILE, of the model NAME, are converted by

    python -m ssmjax.convert FILE --model NAME --out weights/NAME.safetensors

What holds for all of them: EXIF orientation is applied, as PlainMamba's loader does and Vim's does
not. Mixup and cutmix are drawn once for the whole batch; the official code draws on each GPU. The
memory of every config is in train/README.md, by `python -m train.memory_table`.
"""

import dataclasses
from typing import NamedTuple

from ssmjax import PruneConfig, imagenet
from train.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig

# The DeiT recipe (arXiv 2012.12877), which both papers train with.
DEIT = AugmentConfig(
    crop="random_resized",
    flip=0.5,
    randaugment="rand-m9-mstd0.5-inc1",
    erase=0.25,
    mixup=0.8,
    cutmix=1.0,
)

# Of comparisons, whose single epoch is too short for more augmentation than crop and flip.
COMPARED = DataConfig(
    name="imagenet2012",
    eval_split="validation",
    augment=AugmentConfig(crop="random_resized", flip=0.5),
)


class _PlainMamba(NamedTuple):
    """What the official training configs of PlainMamba's sizes do differently."""

    drop_path_rate: float
    batch_size: int
    clip: float
    ema: float | None
    dtype: str


_PLAIN_MAMBA = {
    "plainmamba_l1": _PlainMamba(0.2, 8 * 256, clip=5.0, ema=None, dtype="bfloat16"),
    "plainmamba_l2": _PlainMamba(0.2, 8 * 256, clip=1.0, ema=0.9999, dtype="float32"),
    "plainmamba_l3": _PlainMamba(0.4, 4 * 256, clip=1.0, ema=0.9999, dtype="float32"),
}


def vim(name: str, prune: PruneConfig | None) -> Config:
    """Vim: 8 x 64 images, a constant rate of 1e-5, weight decay 1e-8, averaged weights, float32.

    The rate is that of the paper and of Vim's fine-tuning script; in the authors' own logs of
    pruned models it falls to 5e-6 over five epochs and rises to 1e-5 again over the others. Photos
    are repeated three times in an epoch of a third of them (repeated augmentation). No drop path
    and no limit on the gradient, as in the script.

    What is saved is the average, of DeiT's decay 0.99996 from the first step on, as timm's: after
    75,060 steps the weights that the run starts from still have a share of 5%. The official code
    reports the weights themselves, at the best of 30 epochs, which in the authors' logs is 0 to
    0.19 points above the last. The job reports average and weights, last and best.

    Weight decay leaves `A_log` alone, which the official code decays: over the whole run that would
    shrink it by a share of 8e-9.

    It computes in float32, as the authors ran it (`if_amp=False`). Vim-S recomputes the insides of
    its blocks in the backward pass (`optim.remat`): without, a step is estimated at 25.9 GiB on
    each of 8 GPUs when dense and 18.6 when pruned, more on GPUs too old for the scan's kernel,
    where 32 GB have room for 16.8; with it, at 2.5 and 2.4. In bfloat16 (`--model.dtype bfloat16`)
    the pruned one is estimated at 1.9, and 13.2 when it does not recompute.
    """
    return _imagenet(
        name,
        prune,
        repeats=3,
        dtype="float32",
        optim=OptimConfig(
            lr=1e-5,
            min_lr=1e-5,
            epochs=30,
            batch_size=8 * 64,
            weight_decay=1e-8,
            b2=0.999,
            clip=None,
            label_smoothing=0.1,
            ema=0.99996,
            remat=name == "vim_small_patch16_224",
            ema_warmup=False,
        ),
    )


def plain_mamba(name: str, prune: PruneConfig | None) -> Config:
    """PlainMamba: 5 epochs of warm-up, 2e-5 per 512 images, weight decay 1e-8, recomputed blocks.

    The rates are the paper's, per 512 images: from 2e-8 to 2e-5 in the warm-up, which multiplies a
    cosine over all 30 epochs that ends at 2e-7, as the official code's schedules do. All else that
    the paper does not say is as in the official training of that size: 8 x 256 images (L3:
    4 x 256), drop path 0.2 (L3: 0.4), gradients up to 5 (L2 and L3: 1), batch norms that train
    with the statistics of each device's images.

    L2 and L3 save an average of decay 0.9999 from the first step on, as the official code, which
    trains for 300 epochs: after these 18,750 and 37,530 steps the weights that the run starts from
    still have a share of 15% and 2%. Weights that are not averaged are measured beside it.

    L1 computes in bfloat16, where the official code mixes in float16; L2 and L3 compute in
    float32, as that code does. The paper's code for PlainMamba is not public.

    The insides of blocks are recomputed in the backward pass (`optim.remat`): without, a step is
    estimated at 90, 281 and 242 GiB on each of 8 GPUs when dense; with it, at 10, 24 and 14. Parts
    of a batch in its place (`optim.accumulate`) would give batch norms fewer images to learn from.
    """
    chosen = _PLAIN_MAMBA[name]
    per_512 = chosen.batch_size / 512
    return _imagenet(
        name,
        prune,
        drop_path_rate=chosen.drop_path_rate,
        dtype=chosen.dtype,
        optim=OptimConfig(
            lr=2e-5 * per_512,
            schedule="full_cosine",
            min_lr=2e-7 * per_512,
            epochs=30,
            warmup_epochs=5,
            warmup_lr=2e-8 * per_512,
            batch_size=chosen.batch_size,
            weight_decay=1e-8,
            b2=0.999,
            clip=chosen.clip,
            label_smoothing=0.1,
            ema=chosen.ema,
            ema_warmup=False,
            remat=True,
        ),
    )


def _imagenet(
    name: str,
    prune: PruneConfig | None,
    *,
    optim: OptimConfig,
    dtype: str,
    repeats: int = 1,
    drop_path_rate: float | None = None,
) -> Config:
    """What the recipes share."""
    how = imagenet.preprocessing(name)
    return Config(
        model=ModelConfig(
            name,
            weights=f"weights/{name}.safetensors",
            drop_path_rate=drop_path_rate,
            dtype=dtype,
        ),
        data=DataConfig(
            name="imagenet2012",
            eval_split="validation",
            augment=dataclasses.replace(DEIT, repeats=repeats),
            crop_pct=how.crop_pct,
            mean=how.mean,
            std=how.std,
        ),
        optim=optim,
        prune=prune,
        eval_batch_size=512,
        checkpoint_every=500,
        log_every=50,
    )

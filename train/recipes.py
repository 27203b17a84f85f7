"""How the papers fine-tune on ImageNet-1k, and what was chosen where they say too little."""

import dataclasses

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


def vim(name: str, prune: PruneConfig | None) -> Config:
    """Vim: 8 x 64 images, 1e-5 to 5e-6, weight decay 1e-8, averaged weights, repeated augmentation.

    Chosen: no warm-up, since the rate starts at a hundredth of the training's; no drop path and no
    limit on the gradient, as in the official fine-tuning script; DeiT's decay of the average.
    """
    return _imagenet(
        name,
        prune,
        repeats=3,
        optim=OptimConfig(
            lr=1e-5,
            min_lr=5e-6,
            epochs=30,
            batch_size=512,
            weight_decay=1e-8,
            b2=0.999,
            clip=None,
            label_smoothing=0.1,
            ema=0.99996,
        ),
    )


def plain_mamba(name: str, prune: PruneConfig | None, *, drop_path_rate: float) -> Config:
    """PlainMamba: 5 epochs of warm-up, 2e-5 per 512 images, weight decay 1e-8, gradients up to 5.

    Chosen: 8 x 128 images, as in its training, so that 2e-8, 2e-5 and 2e-7 per 512 images become
    twice that; each size's drop path as in its training; weights are not averaged.
    """
    batch_size = 1024
    per_512 = batch_size / 512
    return _imagenet(
        name,
        prune,
        drop_path_rate=drop_path_rate,
        optim=OptimConfig(
            lr=2e-5 * per_512,
            min_lr=2e-7 * per_512,
            epochs=30,
            warmup_epochs=5,
            warmup_lr=2e-8 * per_512,
            batch_size=batch_size,
            weight_decay=1e-8,
            b2=0.999,
            clip=5.0,
            label_smoothing=0.1,
        ),
    )


def _imagenet(
    name: str,
    prune: PruneConfig | None,
    *,
    optim: OptimConfig,
    repeats: int = 1,
    drop_path_rate: float | None = None,
) -> Config:
    """What the recipes share; bfloat16 compute is ours, the papers used 16-bit floats or 32."""
    photos = imagenet.photos(name)
    return Config(
        model=ModelConfig(
            name,
            weights=f"weights/{name}.safetensors",
            drop_path_rate=drop_path_rate,
            dtype="bfloat16",
        ),
        data=DataConfig(
            name="imagenet2012",
            eval_split="validation",
            augment=dataclasses.replace(DEIT, repeats=repeats),
            crop_pct=photos.crop_pct,
            mean=photos.mean,
            std=photos.std,
        ),
        optim=optim,
        prune=prune,
        eval_batch_size=512,
        checkpoint_every=500,
        log_every=50,
    )

"""Train the dense Vim of the demo on CIFAR-10, from scratch.

Command:  python -m train.finetune --config configs/cifar10_vim_dense.py --workdir runs/dense
Hardware: two CPU cores, about an hour at 300 images/s.
Result:   75.87% of the 10,000 test photos; weights and log are in checkpoints/.
"""

from train.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    model=ModelConfig(
        name="vim_tiny_patch16_224",
        depth=6,
        embed_dim=64,
        d_state=4,
        img_size=36,
        patch_size=8,  # Overlapping patches: 8 x 8 of them, 4 pixels apart.
        stride=4,
    ),
    data=DataConfig(augment=AugmentConfig(crop="shift", flip=0.5)),
    optim=OptimConfig(
        lr=2e-3,
        epochs=18,
        warmup_epochs=0.5,
        batch_size=64,
        weight_decay=0.05,
        ema=0.999,
    ),
    checkpoint_every=500,
)

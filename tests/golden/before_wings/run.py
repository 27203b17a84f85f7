"""A run of two steps on a small Vim that prunes."""

from ssmjax import PruneConfig
from train.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    model=ModelConfig(
        "vim_tiny_patch16_224", depth=2, embed_dim=8, d_state=2, img_size=32, patch_size=8
    ),
    data=DataConfig(augment=AugmentConfig(flip=0.5)),
    optim=OptimConfig(steps=2, batch_size=8, lr=1e-3),
    prune=PruneConfig(after_blocks=(1,), keep_ratio=0.5),
    eval_batch_size=20,
    checkpoint_every=2,
    keep_checkpoints=1,
    log_every=1,
    pictures=2,
)

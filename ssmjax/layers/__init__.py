"""Building blocks of the models. `train` is everywhere that of `ssmjax.layers.norm.BatchNorm`."""

"""Official PyTorch checkpoints, read and written: one total table per family, and its use."""

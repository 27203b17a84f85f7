"""Detection, instance and semantic segmentation on PlainMamba, dense or pruned."""

"""Image data: fetching and preparing data sets, and batches of them for training."""

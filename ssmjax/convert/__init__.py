"""Conversion from the official PyTorch checkpoints: one table per family, and its application."""

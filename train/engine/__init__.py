"""The training of any task: its session and loop, the compiled step, checkpoints and the log."""

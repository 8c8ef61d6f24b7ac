"""Training: the loop, the optimizer, checkpoints and the log."""

"""Networks that undo noise: called with a noisy picture, a time and a label."""

"""What people look at: progress in a terminal, health panels, plots, TensorBoard files."""

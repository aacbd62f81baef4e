"""Models of pictures level by level: called with levels and a label, they give log-probabilities."""

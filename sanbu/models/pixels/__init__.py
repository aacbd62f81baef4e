"""Autoregressive picture models: they map levels and a label to log-probabilities."""

"""Denoisers: networks that take a noisy picture, a time and a label."""

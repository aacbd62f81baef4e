"""Models that score a text."""

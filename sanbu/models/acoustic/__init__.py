"""Acoustic models: from the signs of a text to its mel spectrogram."""

"""Acoustic models: from the symbols of a text to its mel spectrogram."""

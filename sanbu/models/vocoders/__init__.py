"""Vocoders: from a log-mel spectrogram to the wave, a hop of samples for each frame. `vocoder.py` has the contract."""

"""Recognisers: from the mel spectrogram of speech to its letters."""

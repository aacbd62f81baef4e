"""Codecs of music: scores as tokens, as MIDI, as a piano roll and as sound."""

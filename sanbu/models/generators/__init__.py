"""Generators with their critics: called with noise and a label, they give a picture."""

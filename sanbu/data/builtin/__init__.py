"""Data that ships: made by our own generators, or read from the installed Python."""

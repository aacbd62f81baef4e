"""Built-in data: generated questions, and the documentation of the installed Python."""

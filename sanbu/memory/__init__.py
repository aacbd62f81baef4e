"""How much memory a run needs, counted before anything is built, and how much this machine has left."""

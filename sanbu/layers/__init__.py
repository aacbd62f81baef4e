"""Parts that several models share, and moving averages of weights."""

AVERAGES = {"exponential": "average", "power-function": "average"}  # averages of the weights, to sample from
SCALINGS = {"linear": "positions", "llama3": "positions"}  # of the frequencies of rotary positions
QUANTIZERS = {"fsq": "quantizers.fsq", "rvq": "quantizers.rvq"}  # vectors to codes and back

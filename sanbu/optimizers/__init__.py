"""Step 3: how is the best function found? One line per kind; its file has the update rule and the config."""

KINDS = {"sgd": "gradient", "adam": "gradient", "adamw": "gradient", "muon": "muon"}

RATES = {"constant": "rate", "linear": "rate", "cosine": "rate"}  # learning-rate schedules

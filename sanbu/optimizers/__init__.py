"""Step 3: how is the best function found? One line per kind; its file has the update rule and the config."""

KINDS = {
    "sgd": "gradient",
    "adam": "gradient",
    "adamw": "gradient",
    "muon": "muon",
    # trees: they fill a forest, and need no gradient in weights
    "boosting": "boosting",
    "bagging": "bagging",
}

RATES = {"constant": "rate", "linear": "rate", "cosine": "rate"}  # learning-rate schedules

"""Step 3: how is the best function found? One line per kind; its file has the update rule and the config."""

KINDS = {
    # along the gradient
    "sgd": "gradient",
    "adam": "gradient",
    "adamw": "gradient",
    "muon": "muon",
    # by values alone, with a population
    "genetic": "genetic",
    "evolution": "evolution",
    "snes": "evolution",
    "cma": "cma",
    "diagonal-cma": "cma",
    # at once
    "closed-form": "closed_form",
    # trees, grown by the gradient at their outputs
    "boosting": "boosting",
    "bagging": "bagging",
}

RATES = {"constant": "rate", "linear": "rate", "cosine": "rate"}  # learning-rate schedules

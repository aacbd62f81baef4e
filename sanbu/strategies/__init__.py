"""How is a sample drawn? A line for each kind; its file has the config and, below it, the strategy."""

KINDS = {
    "autoregressive": "autoregressive",
    "beam-search": "beam",
    "pixel-by-pixel": "pixel_by_pixel",
    "one-shot": "one_shot",
    "refinement": "refinement",
    "prediction": "prediction",
}

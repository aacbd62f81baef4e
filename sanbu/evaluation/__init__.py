"""Quality, speed and diversity: one file for each measurement, and comparisons of runs."""

ENTRIES = {"measure": "measure"}
MEASURES = {  # what `DataConfig.measure` may name: the file whose `measure(runs, options)` does it
    "text": "text",
    "pictures": "compare",
    "answers": "assistant",
    "objective": "held_out",
}

"""Measurements of runs (quality, speed, diversity), one file each, and comparisons of runs."""

ENTRIES = {"measure": "measure"}
MEASURES = {  # values of `DataConfig.measure`: the file with the function `measure(runs, options)`
    "text": "text",
    "pictures": "compare",
    "answers": "assistant",
    "objective": "held_out",
    "predictions": "predictions",
    "tables": "tables.measure",
    "vocoders": "vocoders",
    "sound-codecs": "sound_codecs",
    "speech": "speech",
    "transcripts": "recognition",
    "music": "music",
    "performances": "performances",
}

"""Data: what do we learn from? One line per kind; its file has the config and, below it, the rows."""

KINDS = {
    "text": "text_rows",
    "images": "image_rows",
    "few-labels": "few_labels",
    "chat": "chat",
    "prompts": "chat",
    "rankings": "preferences",
    "pairs": "preferences",
    "labelled": "labelled",
    "mappings": "mappings",
    "rows": "tensor_rows",
    "table": "tables",
    "encoded-table": "encoded_tables",
    # sound
    "waves": "waves",
    "sounds": "sounds",
    "speech": "speech",
    "speech-waves": "speech_waves",
    "transcripts": "speech",
    "notes": "notes",
    "performances": "performances",
}

FUNCTIONS = ("text", "images", "rows", "table")  # data in memory: sanbu.data.text(["one document", "another"])


def __getattr__(name: str) -> object:
    if name in FUNCTIONS:
        from sanbu.data import memory

        return getattr(memory, name)
    raise AttributeError(f"module 'sanbu.data' has no attribute {name!r}")

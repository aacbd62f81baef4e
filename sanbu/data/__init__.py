"""What do we learn from? A line for each kind; its file has the config and, below it, the rows."""

KINDS = {
    "text": "text_rows",
    "images": "image_rows",
    "chat": "chat",
    "prompts": "chat",
    "rankings": "preferences",
    "pairs": "preferences",
    "labelled": "labelled",
    "mappings": "mappings",
}

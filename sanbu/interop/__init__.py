"""Weights and runs in and out of other libraries' formats, and runs made from runs."""

FORMATS = {
    "huggingface": "huggingface",
    "diffusers": "diffusers",
    "arpa": "arpa",
}  # what `Run.export` may name: the file with `export_folder`

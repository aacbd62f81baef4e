"""Codecs between people and tensors. One line per tokenizer and chat template; `codec.py` has the contract."""

TOKENIZERS = {"byte": "tokenizer", "characters": "tokenizer", "bpe": "bpe", "chat-bpe": "bpe", "file": "bpe"}
TEMPLATES = {"turns": "chat", "jinja": "jinja"}

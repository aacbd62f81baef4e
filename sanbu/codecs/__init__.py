"""Between people and tensors. A line for each tokenizer and each chat template; `codec.py` has the contract."""

TOKENIZERS = {"byte": "tokenizer", "characters": "tokenizer", "bpe": "bpe", "chat-bpe": "bpe", "file": "bpe"}
TEMPLATES = {"turns": "chat", "jinja": "jinja"}

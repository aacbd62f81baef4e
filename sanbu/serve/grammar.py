"""Constrained decoding: the tokens that a JSON schema allows next, by llguidance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.tokenizer import Tokenizer, encode
from sanbu.config import SanbuError

TIGHT: Any = {"whitespace_flexible": False}  # small models would otherwise generate endless spaces


class TokenizerAdapter:
    """A tokenizer in llguidance's interface: the bytes of every token, and the end token."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end: int) -> None:
        self.eos_token_id = end
        spare = [b""] * (vocabulary - len(tokenizer.pieces))
        spelt = [*tokenizer.pieces[:vocabulary], *spare]
        self.special_token_ids = [i for i, piece in enumerate(spelt) if not piece]
        self.tokens = [piece or b"\xff[%d]" % i for i, piece in enumerate(spelt)]
        self.tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        return encode(self.tokenizer, text.decode("utf-8", "replace"))


class Grammars:
    """Grammars for a tokenizer. Raises SanbuError when llguidance is missing or a schema is not supported."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end: int | None) -> None:
        if end is None:
            raise SanbuError("this tokenizer has no end token, which structured output needs")
        import llguidance

        self.library, self.vocabulary = llguidance, vocabulary
        words = llguidance.TokenizerWrapper(TokenizerAdapter(tokenizer, vocabulary, end))
        self.tokenizer = llguidance.LLTokenizer(words, n_vocab=vocabulary, eos_token=end)

    def schema(self, schema: dict[str, Any]) -> SchemaGuide:
        """A guide that allows only JSON of this schema."""
        try:
            grammar = self.library.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=TIGHT)
        except ValueError as error:
            raise SanbuError(f"the schema is not supported: {error}") from None
        wrong = self.library.LLMatcher.validate_grammar(grammar, self.tokenizer)
        if wrong:
            raise SanbuError(f"the schema is not supported: {wrong.splitlines()[0]}")
        return SchemaGuide(self.library.LLMatcher(self.tokenizer, grammar, log_level=0), self.vocabulary)


class SchemaGuide:
    """The Guide of one answer."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self.matcher, self.vocabulary = matcher, vocabulary

    def allowed(self) -> Tensor:
        """bool_V: the tokens allowed next."""
        bits = np.unpackbits(np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        return torch.from_numpy(bits[: self.vocabulary].astype(bool))

    def commit(self, token: int) -> None:
        """Advance by a token. Raises ValueError when the grammar does not allow it."""
        if not self.matcher.consume_token(token):
            raise ValueError(f"the grammar does not allow token {token} here")

    def forced(self) -> list[int]:
        """The next tokens, where the grammar leaves only one choice, as the tokenizer would encode them."""
        return list(self.matcher.compute_ff_tokens())

    def ended(self) -> bool:
        """Whether the JSON is complete and nothing can follow."""
        return bool(self.matcher.is_stopped())

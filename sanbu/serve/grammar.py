"""Answers of a given form: a JSON schema as the tokens that may come next, by llguidance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.tokenizer import Tokenizer, encode
from sanbu.config import SanbuError

TIGHT: Any = {"whitespace_flexible": False}  # small models would fill a page with spaces


class Words:
    """A tokenizer as llguidance asks for one: what every token spells, and which one ends."""

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
            raise SanbuError("this tokenizer has no token that ends an answer, so answers cannot be held to a form")
        import llguidance

        self.library, self.vocabulary = llguidance, vocabulary
        words = llguidance.TokenizerWrapper(Words(tokenizer, vocabulary, end))
        self.tokenizer = llguidance.LLTokenizer(words, n_vocab=vocabulary, eos_token=end)

    def schema(self, schema: dict[str, Any]) -> SchemaGuide:
        """A guide that lets only JSON of this schema through."""
        try:
            grammar = self.library.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=TIGHT)
        except ValueError as error:
            raise SanbuError(f"the schema cannot be followed: {error}") from None
        wrong = self.library.LLMatcher.validate_grammar(grammar, self.tokenizer)
        if wrong:
            raise SanbuError(f"the schema cannot be followed: {wrong.splitlines()[0]}")
        return SchemaGuide(self.library.LLMatcher(self.tokenizer, grammar, log_level=0), self.vocabulary)


class SchemaGuide:
    """A Guide that follows one answer."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self.matcher, self.vocabulary = matcher, vocabulary

    def allowed(self) -> Tensor:
        """bool_V: the tokens that may come next."""
        bits = np.unpackbits(np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        return torch.from_numpy(bits[: self.vocabulary].astype(bool))

    def commit(self, token: int) -> None:
        """A token has come. Raises ValueError when it may not."""
        if not self.matcher.consume_token(token):
            raise ValueError(f"token {token} is not in the grammar")

    def forced(self) -> list[int]:
        """Tokens that the form leaves no choice about, spelt as the tokenizer would."""
        return list(self.matcher.compute_ff_tokens())

    def ended(self) -> bool:
        """Whether the form is complete and nothing can follow."""
        return bool(self.matcher.is_stopped())

"""Constrained decoding: the tokens that a JSON schema allows next, by llguidance."""

from __future__ import annotations

import json
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.tokenizer import Tokenizer, encode
from sanbu.config import SanbuError
from sanbu.serve.json_schema import local
from sanbu.serve.schema_child import SchemaChild, Words, matcher_of, tokenizer_of

CACHED = 64  # compiled schemas that a run keeps
OVERLAP = "oneOf: more than one of its schemas may allow the same value; use anyOf"


class Grammars:
    """Grammars for a tokenizer. Raises SanbuError when llguidance is missing or a schema is not supported."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end: int | None) -> None:
        if end is None:
            raise SanbuError("this tokenizer has no end token, which structured output needs")
        spare = [b""] * (vocabulary - len(tokenizer.pieces))
        spelt = [*tokenizer.pieces[:vocabulary], *spare]
        special = [i for i, piece in enumerate(spelt) if not piece]
        tokens = [piece or b"\xff[%d]" % i for i, piece in enumerate(spelt)]
        self.tokenizer = tokenizer_of(Words(tokens, special, end, lambda text: encode(tokenizer, text)))
        self.child = SchemaChild(tokens, special, end)
        self.vocabulary, self.lock = vocabulary, Lock()
        self.known: OrderedDict[str, Grammar | SanbuError] = OrderedDict()

    def schema(self, schema: dict[str, Any]) -> Grammar:
        """The grammar of a schema, compiled once. Takes up to some seconds, so call it off the event loop."""
        text = json.dumps(local(schema))
        with self.lock:
            if text not in self.known:
                self.known[text] = self._compile(text)
                while len(self.known) > CACHED:
                    self.known.popitem(last=False)
            self.known.move_to_end(text)
            found = self.known[text]
        if isinstance(found, SanbuError):
            raise SanbuError(str(found))
        return found

    def _compile(self, text: str) -> Grammar | SanbuError:
        found = self.child.check(text)
        wrong = OVERLAP if "coerce_one_of" in found else found.partition(":  (")[0]
        if wrong:
            return SanbuError(f"the schema is not supported: {wrong[:300]}")
        return Grammar(matcher_of(self.tokenizer, text), self.vocabulary)


class Grammar:
    """A compiled schema; every answer gets a guide of its own."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self.matcher, self.vocabulary = matcher, vocabulary

    def guide(self) -> SchemaGuide:
        """A guide at the beginning of an answer, which takes no compilation."""
        return SchemaGuide(self.matcher.deep_copy(), self.vocabulary)


class SchemaGuide:
    """The Guide of one answer."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self.matcher, self.vocabulary = matcher, vocabulary

    def allowed(self) -> Tensor:
        """bool_V: the tokens allowed next. Raises SanbuError when the schema is too complex here."""
        bits = np.unpackbits(np.frombuffer(self._mask(), dtype=np.uint8), bitorder="little")
        return torch.from_numpy(bits[: self.vocabulary].astype(bool))

    def _mask(self) -> bytes:
        try:
            mask = bytes(self.matcher.compute_bitmask())
        except ValueError:
            mask = b""
        if self.matcher.is_error() or not any(mask):
            raise SanbuError(f"the schema allows no further text, or is too complex: {reason(self.matcher)}")
        return mask

    def commit(self, token: int) -> None:
        """Advance by an allowed token. Raises SanbuError when the schema is too complex here."""
        if not self.matcher.consume_token(token):
            raise SanbuError(f"the schema is too complex: {reason(self.matcher)}")

    def forced(self) -> list[int]:
        """The next tokens, where the grammar leaves only one choice, as the tokenizer would encode them."""
        return list(self.matcher.compute_ff_tokens())

    def ended(self) -> bool:
        """Whether the JSON is complete and nothing can follow."""
        return bool(self.matcher.is_stopped() and not self.matcher.is_error())


def reason(matcher: Any) -> str:
    """Why a matcher has stopped, in one line."""
    lines = str(matcher.get_error()).strip().splitlines()
    return lines[0][:200] if lines else "there is no end to it"

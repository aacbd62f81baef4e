"""The `logprobs` of /v1/completions: parallel lists of tokens, log-probabilities, alternatives and text offsets."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from sanbu.codecs.tokenizer import Tokenizer
from sanbu.serve.request import Score
from sanbu.serve.streaming import GeneratedToken

LOWEST = -9999.0  # written for -inf, as in OpenAI's API


class Offsets:
    """Where each token begins in a text, in characters; a token within a character begins where the character does."""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.characters = 0  # complete ones

    def next(self, spelling: bytes) -> int:
        """The offset of the next token."""
        tail = self.decoder.getstate()[0]  # bytes of a character that is not complete
        begun = starts(tail + spelling)
        offset = self.characters + sum(start <= len(tail) for start in begun) - bool(begun and spelling)
        self.characters += len(self.decoder.decode(spelling))
        return offset


def starts(text: bytes) -> list[int]:
    """The first byte of each character, decoded with errors="replace"."""
    found: list[int] = []
    place = 0
    while place < len(text):
        try:
            text[place:].decode("utf-8")
            valid, broken = len(text) - place, 0
        except UnicodeDecodeError as error:
            valid, broken = error.start, error.end - error.start
        found += [i for i in range(place, place + valid) if text[i] & 0xC0 != 0x80]
        found += [place + valid] if broken else []
        place += valid + broken
    return found


class TokenNames:
    """Texts of tokens: of a part of a character its bytes, as OpenAI writes them, of a special token its name."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.pieces, self.inner = tokenizer.pieces, getattr(tokenizer, "tokenizer", None)

    def name(self, token: int) -> str:
        """The text of a token."""
        spelling = self.pieces[token] if token < len(self.pieces) else b""
        if not spelling:
            known = self.inner.id_to_token(token) if self.inner is not None else None
            return known or f"token_id:{token}"
        try:
            return spelling.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelling)

    def top(self, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> dict[str, float]:
        """Log-probabilities by name: the most likely tokens and the token itself, under its own value."""
        named: dict[str, tuple[int, float]] = {self.name(token): (token, logprob)}
        for other, value in top:
            name = self.name(other)
            if name in named and named[name][0] != other:
                name = f"token_id:{other}"  # another token of the same text
            named[name] = (other, value)
        return {name: max(value, LOWEST) for name, (_, value) in named.items()}


class LegacyLogprobs:
    """The log-probabilities of one answer, in one or several parts. top: alternatives are wanted."""

    def __init__(self, tokenizer: Tokenizer, top: bool) -> None:
        self.names, self.alternatives, self.offsets = TokenNames(tokenizer), top, Offsets()

    def skip(self, text: str) -> None:
        """The answer begins after an echoed text."""
        self.offsets.characters += len(text)

    def prompt(self, ids: Sequence[int], scores: Sequence[Score]) -> dict[str, Any]:
        """The part of an echoed prompt; nothing predicts its first token. scores: of the others."""
        values: list[float | None] = [None, *(max(value, LOWEST) for value, _ in scores)][: len(ids)]
        tops: list[Any] = [None][: len(ids)]
        tops += [self.names.top(token, *score) for token, score in zip(ids[1:], scores, strict=True)]
        return self._part(ids, values, tops)

    def part(self, tokens: Sequence[GeneratedToken]) -> dict[str, Any]:
        """The next part of the answer."""
        tops = [self.names.top(one.token, one.logprob, one.top) for one in tokens]
        return self._part([one.token for one in tokens], [max(one.logprob, LOWEST) for one in tokens], tops)

    def _part(self, ids: Sequence[int], values: Sequence[float | None], tops: Sequence[Any]) -> dict[str, Any]:
        pieces = self.names.pieces
        return {
            "tokens": [self.names.name(token) for token in ids],
            "token_logprobs": list(values),
            "top_logprobs": list(tops) if self.alternatives else None,
            "text_offset": [self.offsets.next(pieces[token] if token < len(pieces) else b"") for token in ids],
        }


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several parts as one."""
    return {
        name: None if parts[0][name] is None else [one for part in parts for one in part[name]] for name in parts[0]
    }

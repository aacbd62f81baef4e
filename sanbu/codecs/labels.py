"""The codec of labelled text: a text in, the name of a label or a number out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sanbu.codecs.text import TokenCodec
from sanbu.codecs.tokenizer import DELIMITER, EXTRACT, Tokenizer, padding_of
from sanbu.config import SanbuError
from sanbu.space import Draft


class LabelCodec(TokenCodec):
    """Text in, a label or a number out."""

    def __init__(self, tokenizer: Tokenizer, names: list[str]) -> None:
        super().__init__(tokenizer)
        self.names = names
        marks = {name: tokenizer.special(name) for name in (DELIMITER, EXTRACT)}
        if None in marks.values():
            raise SanbuError(
                "data.tokenizer: tasks need <|delimiter|> and <|extract|>; pretrain with data.tokenizer=chat-bpe"
            )
        self.delimiter, self.extract = marks[DELIMITER], marks[EXTRACT]
        self.pad = padding_of(tokenizer)

    def write(self, parts: tuple[str, ...], room: int) -> list[int]:
        """The ids of: start part (delimiter part) extract. The longest part is cut to fit into `room` ids."""
        pieces = [ids.tolist() for ids in self.tokenizer.encode_batch(list(parts))]
        while sum(map(len, pieces)) + len(pieces) + 1 > room:
            longest = max(pieces, key=len)
            del longest[-1]
        start = [] if self.tokenizer.start is None else [self.tokenizer.start]
        joined = [number for piece in pieces for number in (*piece, self.delimiter)][:-1]
        return [*start, *joined, self.extract]

    def begin(self, prompt: str) -> list[int]:
        """The ids of a text to label; a tab separates two parts."""
        return self.write(tuple(prompt.split("\t")), 1 << 30)

    def follow(self, stop: Sequence[str] = ()) -> LabelFollower:
        """A follower that reads the scores; `stop` has no meaning here."""
        return LabelFollower(self.names)


class LabelFollower:
    """Converts scores into the name of the best label, or into a number."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.found: list[str] = []
        self.pieces: list[str] = []

    def update(self, draft: Draft) -> Tensor:
        """Read the scores of a draft, if it has any."""
        if draft.sample.shape[1] and not self.found:
            best = draft.sample.argmax(1).tolist()
            numbers = [f"{value:.3f}" for value in draft.sample[:, 0].tolist()]
            named = len(self.names) == draft.sample.shape[1] > 1
            self.found = [self.names[i] for i in best] if named else numbers
        self.pieces = self.found
        return draft.done

    def results(self) -> list[str]:
        return self.found

"""Text for strategies and people: prompts to tokens, drafts to text that never shows half a character or a stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanbu.codecs.kinds import Byte, Characters, TokenizerConfig, TokenizerFile
from sanbu.codecs.tokenizer import ByteTokenizer, CharacterTokenizer, Tokenizer, TokenizerError, decode, encode, spelling
from sanbu.files import write_text
from sanbu.strategies.strategy import Batch, Draft


class TextCodec:
    """A tokenizer with what a strategy needs around it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, config: TokenizerConfig) -> TextCodec:
        """The tokenizer that a run folder keeps."""
        if isinstance(config, Byte):
            return cls(ByteTokenizer())
        if isinstance(config, Characters):
            return cls(CharacterTokenizer(config.alphabet))
        from sanbu.codecs.bpe import FileTokenizer

        kept = TokenizerFile(path=str(folder / "tokenizer.json"))
        if not (folder / "tokenizer.json").exists():
            raise TokenizerError(f"{folder} has no tokenizer.json: its weights can be called, but not given text")
        start = config.start() if isinstance(config, TokenizerFile) else config.end()
        return cls(FileTokenizer.load(kept.file(), config.end(), start))

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)

    def condition(self, prompt: str | Sequence[str] | None, rows: int) -> Batch:
        """tokens_BT, padded on the right, and length_B; each prompt `rows` times. No prompt begins a new document."""
        prompts = [prompt or ""] if prompt is None or isinstance(prompt, str) else list(prompt)
        ids = [self.begin(text) for text in prompts for _ in range(rows)]
        longest = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
        return {"tokens": tokens, "length": torch.tensor([len(row) for row in ids])}

    def begin(self, prompt: str) -> list[int]:
        """The ids of a prompt, begun as a document begins. Raises TokenizerError when there is nothing."""
        ids = [] if self.tokenizer.start is None else [self.tokenizer.start]
        ids += encode(self.tokenizer, prompt)
        if not ids:
            raise TokenizerError("this tokenizer has no token to begin from; give a prompt")
        return ids

    def read(self, sample: Tensor) -> str:
        """The text of ids."""
        return decode(self.tokenizer, sample.tolist())

    def follow(self, strategy: Any) -> Readers:
        """Readers of drafts that stop at the strategy's stop texts."""
        return Readers(self.tokenizer, strategy.stop)

    def render(self, samples: Sequence[Any], path: Path) -> Path:
        """One text file, samples apart by a line of dashes."""
        path = path.with_name(path.name + ".txt")
        write_text(path, ("\n" + "-" * 80 + "\n").join(samples) + "\n")
        return path


class Reader:
    """One row's text as it comes. What is given out never changes, ends before a stop text, and holds whole characters.

    Of several stop texts the first that is complete counts, and of those the longest, however the text is cut into tokens.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.pieces, self.stop = tokenizer.pieces, [text for text in stop if text]
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held, self.text, self.stopped = "", "", False

    def feed(self, ids: Sequence[int], final: bool = False) -> str:
        """Take tokens; return the text that is now certain."""
        if self.stopped:
            return ""
        self.held += self.decoder.decode(spelling(self.pieces, ids), final)
        ends = [(self.held.find(text) + len(text), self.held.find(text)) for text in self.stop if text in self.held]
        if ends:
            self.stopped, sure = True, min(ends)[1]
        else:
            sure = len(self.held) - (0 if final else self._may_begin())
        out, self.held = self.held[:sure], self.held[sure:]
        self.text += out
        return out

    def _may_begin(self) -> int:
        """How many of the last characters may be the beginning of a stop text."""
        sizes = (
            size
            for text in self.stop
            for size in range(min(len(text) - 1, len(self.held)), 0, -1)
            if self.held.endswith(text[:size])
        )
        return max(sizes, default=0)


class Readers:
    """A reader a row, fed from drafts of tokens_BT whose record holds start_B, where the new text begins."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.readers: list[Reader] = []
        self.seen: list[int] = []

    def update(self, draft: Draft) -> Tensor:
        """Read what is newly committed; says which rows met a stop text. `pieces` holds what is new in each row."""
        lengths = draft.committed.sum(1).tolist()
        if not self.readers:
            self.readers = [Reader(self.tokenizer, self.stop) for _ in lengths]
            self.seen = draft.record["start"].tolist()
        done = draft.done.tolist()
        self.pieces = []
        for row, (reader, length) in enumerate(zip(self.readers, lengths, strict=True)):
            new = draft.sample[row, self.seen[row] : length].tolist() if length > self.seen[row] else []
            self.pieces.append(reader.feed(new, done[row]))
            self.seen[row] = max(length, self.seen[row])
        return torch.tensor([reader.stopped for reader in self.readers], device=draft.done.device)

    def results(self) -> list[str]:
        """Each row's text."""
        return [reader.text for reader in self.readers]

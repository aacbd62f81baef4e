"""Text for people: prompts to tokens; drafts to text without partial characters or stop texts."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sanbu.codecs.codec import Written
from sanbu.codecs.tokenizer import Tokenizer, TokenizerError, bytes_of, decode, encode
from sanbu.config import SanbuError
from sanbu.files import write_text
from sanbu.space import Batch, Draft

RULE = "\n" + "-" * 80 + "\n"  # between samples in one file


class TokenCodec:
    """What the codecs over a tokenizer have in common. Subclasses define how a prompt becomes ids (`begin`)."""

    medium, unit = "text", "tokens"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def begin(self, prompt: Any) -> list[int]:
        """The ids of one prompt. Raises TokenizerError when there is nothing to begin from."""
        raise NotImplementedError

    def document_ids(self, text: str) -> list[int]:
        """The ids of a document that begins with this text. Raises TokenizerError when there are none."""
        ids = [] if self.tokenizer.start is None else [self.tokenizer.start]
        ids += encode(self.tokenizer, text)
        if not ids:
            raise TokenizerError("this tokenizer has no token to begin from; give a prompt")
        return ids

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)

    def vocabulary(self) -> Sequence[bytes]:
        return self.tokenizer.pieces

    def request(self, prompt: str | None, label: str | None) -> str | None:
        if label is not None:
            raise SanbuError(f"--label: given {label}, but this run draws text, which has no labels; leave --label out")
        return prompt

    def condition(self, prompt: Any, rows: int) -> Batch:
        """tokens_BT, padded on the right, and length_B; each prompt `rows` times. None begins a new document."""
        prompts = [prompt or ""] if prompt is None or isinstance(prompt, str) else list(prompt)
        return batch_of([self.begin(text) for text in prompts for _ in range(rows)])

    def read(self, sample: Tensor) -> str:
        """The text of ids; padding, which is negative, is left out."""
        return decode(self.tokenizer, sample[sample >= 0].tolist())

    def amount(self, batch: Batch) -> int:
        return batch["tokens"].numel()

    def show(self, sample: str) -> str:
        return sample

    def render(self, samples: Sequence[str], path: Path) -> Path:
        """One text file, samples separated by a line of dashes."""
        path = path.with_name(path.name + ".txt")
        write_text(path, RULE.join(samples) + "\n")
        return path

    def export(self, samples: Sequence[str], folder: Path, frames: Sequence[Sequence[str]] = ()) -> Written:
        """A text file for each sample; the way they were drawn leaves nothing to write."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(samples):
            write_text(folder / f"{number:04d}.txt", text)
        return {
            "samples": len(samples),
            "folder": str(folder),
            "overview": str(self.render(samples, folder / "samples")),
        }


class TextCodec(TokenCodec):
    """Plain text: a prompt is the beginning of a document."""

    def begin(self, prompt: str) -> list[int]:
        """The ids of a prompt, begun as a document begins."""
        return self.document_ids(prompt)

    def follow(self, stop: Sequence[str] = ()) -> TextFollower:
        """TextFollower of drafts that stop at these texts."""
        return TextFollower(self.tokenizer, stop)


def batch_of(ids: Sequence[Sequence[int]]) -> Batch:
    """tokens_BT padded on the right with 0, and length_B."""
    return {"tokens": padded(ids, 0), "length": torch.tensor([len(row) for row in ids])}


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of unequal length as one tensor of int64, filled on the right; at least one column."""
    tensors = [torch.tensor(list(row) or [filler], dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=filler)


class Reader:
    """One row's text while it is generated: never revised, cut before a stop text, and always whole characters.

    Of several stop texts the first that is complete counts, and of those the longest, however the text is cut into
    tokens.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.pieces, self.stop = tokenizer.pieces, [text for text in stop if text]
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held, self.text, self.stopped = "", "", False

    def feed(self, ids: Sequence[int], final: bool = False) -> str:
        """Take tokens; return the text that is now final."""
        if self.stopped:
            return ""
        self.held += self.decoder.decode(bytes_of(self.pieces, ids), final)
        starts = {text: self.held.find(text) for text in self.stop if text in self.held}
        ends = [(start + len(text), start) for text, start in starts.items()]
        if ends:
            self.stopped, sure = True, min(ends)[1]
        else:
            sure = len(self.held) - (0 if final else self._may_begin())
        out, self.held = self.held[:sure], self.held[sure:]
        self.text += out
        return out

    def _may_begin(self) -> int:
        """How many of the last characters may begin a stop text."""
        sizes = (
            size
            for text in self.stop
            for size in range(min(len(text) - 1, len(self.held)), 0, -1)
            if self.held.endswith(text[:size])
        )
        return max(sizes, default=0)


class TextFollower:
    """One reader per row, fed from drafts of tokens_BT whose record holds start_B, where the new text begins."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.readers: list[Reader] = []
        self.seen: list[int] = []

    def update(self, draft: Draft) -> Tensor:
        """Read newly committed tokens; returns which rows reached a stop text. `pieces` holds each row's new text."""
        lengths = draft.committed.sum(1).tolist()
        if not self.readers:
            self.readers = [Reader(self.tokenizer, self.stop) for _ in lengths]
            self.seen = draft.record["start"].tolist()
        done = draft.done.tolist()
        self.pieces = []
        for row, (reader, length) in enumerate(zip(self.readers, lengths, strict=True)):
            new = draft.sample[row, self.seen[row] : length].tolist()
            self.pieces.append(reader.feed(new, done[row]))
            self.seen[row] = max(length, self.seen[row])
        return torch.tensor([reader.stopped for reader in self.readers], device=draft.done.device)

    def results(self) -> list[str]:
        """Each row's text."""
        return [reader.text for reader in self.readers]

"""The codec of text: prompts to tokens; drafts to text without partial characters or stop texts."""

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

RULE = "\n" + "-" * 80 + "\n"  # separates samples in one file


class Plain(str):
    """A prompt that is continued as plain text, also by a run that answers in a chat."""

    __slots__ = ()


class TokenCodec:
    """What all codecs with a tokenizer share. Subclasses define `begin`, the ids of a prompt."""

    medium, unit = "text", "tokens"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def begin(self, prompt: Any) -> list[int]:
        """The ids of a prompt. Raises TokenizerError when there are none."""
        raise NotImplementedError

    def document_ids(self, text: str) -> list[int]:
        """The ids of a document that begins with `text`. Raises TokenizerError when there are none."""
        ids = [] if self.tokenizer.start is None else [self.tokenizer.start]
        ids += encode(self.tokenizer, text)
        if not ids:
            raise TokenizerError("the prompt is empty and this tokenizer has no start token; give a prompt")
        return ids

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)

    def vocabulary(self) -> Sequence[bytes]:
        return self.tokenizer.pieces

    def request(self, prompt: str | None, label: str | None) -> str | None:
        if label is not None:
            raise SanbuError(f"--label: given {label}, but this run draws text, which has no labels; leave --label out")
        return prompt

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """tokens_BT, padded on the right, and length_B; each prompt `rows` times. None begins a new document."""
        prompts = [""] if prompt is None else [prompt] if isinstance(prompt, str) else list(prompt)
        return batch_of([self.begin(text) for text in prompts for _ in range(rows)])

    def read(self, sample: Tensor) -> str:
        """The text of the ids; negative ids are padding."""
        return decode(self.tokenizer, sample[sample >= 0].tolist())

    def amount(self, batch: Batch) -> int:
        return batch["tokens"].numel()

    def show(self, sample: str) -> str:
        return sample

    def render(self, samples: Sequence[str], path: Path) -> Path:
        """Write all samples into one text file, separated by lines of dashes."""
        path = path.with_name(path.name + ".txt")
        write_text(path, RULE.join(samples) + "\n")
        return path

    def export(self, samples: Sequence[str], folder: Path, frames: Sequence[Sequence[str]] = ()) -> Written:
        """Write a text file per sample and one with all samples; frames are not written."""
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
        """The start token, if there is one, and the ids of the prompt."""
        return self.document_ids(prompt)

    def follow(self, stop: Sequence[str] = ()) -> TextFollower:
        """A follower of drafts that ends rows at the stop texts."""
        return TextFollower(self.tokenizer, stop)


def batch_of(ids: Sequence[Sequence[int]]) -> Batch:
    """tokens_BT padded on the right with 0, and length_B."""
    return {"tokens": padded(ids, 0), "length": torch.tensor([len(row) for row in ids])}


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of different lengths as one int64 tensor, padded on the right with `filler`; at least one column."""
    tensors = [torch.tensor(list(row) or [filler], dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=filler)


class Reader:
    """The text of one row while it is generated: final once returned, in whole characters, cut before a stop text.

    The first stop text that is complete counts; of several that end at the same place, the longest. The result does
    not depend on how the text is divided into tokens. begins: no text is before it, so that a space which the tokenizer
    adds there is left out.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), begins: bool = False) -> None:
        self.pieces, self.stop = tokenizer.pieces, [text for text in stop if text]
        self.skip = tokenizer.added[0].decode() if begins else ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held, self.text, self.stopped = "", "", False

    def feed(self, ids: Sequence[int], final: bool = False) -> str:
        """Read tokens. Returns the text that became final."""
        if self.stopped:
            return ""
        self.held += self.decoder.decode(bytes_of(self.pieces, ids), final)
        if self.held and self.skip:
            self.held, self.skip = self.held.removeprefix(self.skip), ""
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
        """The number of last characters that may be the beginning of a stop text."""
        sizes = (
            size
            for text in self.stop
            for size in range(min(len(text) - 1, len(self.held)), 0, -1)
            if self.held.endswith(text[:size])
        )
        return max(sizes, default=0)


class TextFollower:
    """Follows drafts of tokens_BT with a Reader per row; record["start"] of a draft says where new text begins."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.readers: list[Reader] = []
        self.seen: list[int] = []

    def update(self, draft: Draft) -> Tensor:
        """Read new tokens; `pieces` then has the new text of each row. Returns which rows reached a stop text."""
        lengths = draft.committed.sum(1).tolist()
        if not self.readers:
            if "start" not in draft.record:
                raise SanbuError("strategy: prediction gives scores, not text; use `sanbu evaluate` or `sanbu rank`")
            self.seen = draft.record["start"].tolist()
            given = [row[:start].tolist() for row, start in zip(draft.sample, self.seen, strict=True)]
            empty = [not bytes_of(self.tokenizer.pieces, ids) for ids in given]
            self.readers = [Reader(self.tokenizer, self.stop, begins) for begins in empty]
        done = draft.done.tolist()
        self.pieces = []
        for row, (reader, length) in enumerate(zip(self.readers, lengths, strict=True)):
            new = draft.sample[row, self.seen[row] : length].tolist()
            self.pieces.append(reader.feed(new, done[row]))
            self.seen[row] = max(length, self.seen[row])
        return torch.tensor([reader.stopped for reader in self.readers], device=draft.done.device)

    def results(self) -> list[str]:
        """The text of each row."""
        return [reader.text for reader in self.readers]

"""Labelled text in the order GPT-1 reads it (Radford and others, 2018), as rows of tokens_BKT with label_B.

classification  start text extract                                one order
entailment      start first delimiter second extract              one order
similarity      start first delimiter second extract              both orders, K = 2
choice          start first delimiter choice extract              one for each choice
regression      start text extract                                label is a number

last_BK is the place of the extract token, whose state is judged. targets_BKT are the text's next tokens, for the language model beside.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.kinds import DELIMITER, EXTRACT, PAD
from sanbu.codecs.text import TextCodec
from sanbu.config import SanbuError, dump, nearest
from sanbu.data import chat_kinds, conversations, sources
from sanbu.data.chat import IGNORED, first, padded, tokenizer_hash
from sanbu.data.order import shuffled
from sanbu.noise import mix_int

Record = dict[str, Any]


class LabelledRows:
    """Rows of text with a label each."""

    def __init__(self, config: chat_kinds.Labelled) -> None:
        self.config = config
        self.codec = LabelCodec(config.tokenizer.build(()), config.names())
        about = json.dumps([1, conversations.fingerprint(config.path), dump(config), tokenizer_hash(config.tokenizer)])
        self.fingerprint = "labelled-" + hashlib.sha256(about.encode()).hexdigest()[:24]
        found = records(config.path)
        self.parts: dict[str, list[Record]] = {"train": [], "held_out": []}
        for record in found:
            self.parts["held_out" if chance(record, config) < config.validation else "train"].append(record)
        self.rows, self.held_out_rows = len(self.parts["train"]), len(self.parts["held_out"])
        if not self.rows:
            raise SanbuError(f"data.path: {config.path!r} holds no record to learn from")

    def describe(self) -> str:
        """How many texts, how many labels."""
        names = self.config.names()
        labels = f"{len(names)} labels" if names else "a number each"
        return f"{self.rows:,} texts with {labels}, {self.held_out_rows:,} held out"

    def batch(self, start: int, size: int) -> dict[str, Tensor]:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))

    def held_out(self, start: int, size: int) -> dict[str, Tensor]:
        """Held-out rows in their own order."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _rows(self, part: str, numbers: Iterable[int]) -> dict[str, Tensor]:
        chosen = [self.parts[part][number] for number in numbers]
        written = [[self.codec.write(side, self.config.context) for side in sides(record, self.config)] for record in chosen]
        wide = max(map(len, written))
        flat = [ids for each in written for ids in each + [[0]] * (wide - len(each))]
        tokens = padded(flat, self.codec.pad).view(len(chosen), wide, -1)
        length = torch.tensor([len(ids) for ids in flat]).view(len(chosen), wide)
        place = torch.arange(tokens.shape[2])
        after = torch.nn.functional.pad(tokens[..., 1:], (0, 1))
        targets = torch.where(place < length[..., None] - 2, after, IGNORED)
        return {"tokens": tokens, "targets": targets, "last": length - 1, "label": self._labels(chosen)}

    def _labels(self, chosen: list[Record]) -> Tensor:
        values = [record[self.config.label] for record in chosen]
        if self.config.task == "regression":
            return torch.tensor([float(value) for value in values])
        names = self.config.names()
        return torch.tensor([int(value) if self.config.task == "choice" else names.index(str(value)) for value in values])


class LabelCodec(TextCodec):
    """Text in, a label out."""

    def __init__(self, tokenizer: Any, names: list[str]) -> None:
        super().__init__(tokenizer)
        self.names = names
        marks = {name: tokenizer.special(name) for name in (DELIMITER, EXTRACT)}
        if None in marks.values():
            raise SanbuError(
                "data.tokenizer: tasks need <|delimiter|> and <|extract|>; pretrain with data.tokenizer=chat-bpe"
            )
        self.delimiter, self.extract = marks[DELIMITER], marks[EXTRACT]
        self.pad = first(tokenizer.special(PAD), tokenizer.end)

    def write(self, parts: tuple[str, ...], room: int) -> list[int]:
        """start part (delimiter part) extract; the longest part is cut where the row would be too long."""
        pieces = [ids.tolist() for ids in self.tokenizer.encode_batch(list(parts))]
        while sum(map(len, pieces)) + len(pieces) + 1 > room:
            longest = max(pieces, key=len)
            del longest[-1]
        start = [] if self.tokenizer.start is None else [self.tokenizer.start]
        joined = [number for piece in pieces for number in (*piece, self.delimiter)][:-1]
        return [*start, *joined, self.extract]

    def begin(self, prompt: str) -> list[int]:
        """The ids of a text whose label is asked for; a tab stands between two parts."""
        return self.write(tuple(prompt.split("\t")), 1 << 30)

    def follow(self, strategy: Any) -> Any:
        return Labels(self.names)


class Labels:
    """Scores as the name of the best label, or as a number."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.found: list[str] = []
        self.pieces: list[str] = []

    def update(self, draft: Any) -> Tensor:
        """Read the scores when they are there."""
        if draft.sample.shape[1] and not self.found:
            best = draft.sample.argmax(1).tolist()
            numbers = [f"{value:.3f}" for value in draft.sample[:, 0].tolist()]
            self.found = [self.names[i] for i in best] if len(self.names) == draft.sample.shape[1] > 1 else numbers
        self.pieces = self.found
        return draft.done

    def results(self) -> list[str]:
        return self.found


def sides(record: Record, config: chat_kinds.Labelled) -> list[tuple[str, ...]]:
    """What is read of a record, one entry a sequence."""
    text = str(record[config.text])
    if config.task in ("classification", "regression"):
        return [(text,)]
    if config.task == "choice":
        return [(text, str(choice)) for choice in record[config.second]]
    other = str(record[config.second])
    return [(text, other)] if config.task == "entailment" else [(text, other), (other, text)]


def records(path: str) -> list[Record]:
    """Records of JSONL, CSV or TSV, gzip or not; of the default skills, each question with its skill. Raises SourceError."""
    if path == "skills":
        from sanbu.data import skills

        return [{"text": found.text, "label": found.skill} for found in skills.by_text().values()]
    found: list[Record] = []
    for file in sources.files(path):
        suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
        if suffixes[-1:] in ([".csv"], [".tsv"]):
            text = io.StringIO(sources.plain(file, sources.unpacked(file)))
            tab = suffixes[-1] == ".tsv"
            found += csv.DictReader(
                text, delimiter="\t" if tab else ",", quoting=csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL
            )
        else:
            found += [record for _, record in conversations.lines(file)]
    return found


def look(config: chat_kinds.Labelled) -> list[str]:
    """The names of the labels, sorted. Raises SanbuError when a field is missing."""
    found = records(config.path)
    wanted = [config.text, config.label, *([config.second] if config.task in ("entailment", "similarity", "choice") else [])]
    for name in wanted:
        if not found or name not in found[0]:
            fields = list(found[0]) if found else []
            raise SanbuError(
                f"data.path: {config.path!r} has no field {name!r}; fields: {', '.join(fields)}{nearest(name, fields)}"
            )
    return [] if config.task in ("regression", "choice") else sorted({str(record[config.label]) for record in found})


def chance(record: Record, config: chat_kinds.Labelled) -> float:
    """A number in [0, 1) that only the text decides."""
    text = json.dumps([record[config.text], record.get(config.second)], ensure_ascii=False)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)

"""Labelled text in the order GPT-1 reads it (Radford and others, 2018), as rows of tokens_BKT with label_B.

classification  start text extract                                one order
entailment      start first delimiter second extract              one order
similarity      start first delimiter second extract              both orders, K = 2
choice          start first delimiter choice extract              one for each choice
regression      start text extract                                label is a number

last_BK is the place of the extract token, whose state is judged. targets_BKT are the text's next tokens, for the
language model beside.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.codec import Codec
from sanbu.codecs.labels import LabelCodec
from sanbu.codecs.text import padded
from sanbu.codecs.tokenizer import Byte, TokenizerConfig
from sanbu.config import SanbuError, dump, nearest
from sanbu.data import conversations, sources
from sanbu.data.data import Data, DataConfig
from sanbu.data.order import shuffled
from sanbu.noise import mix_int
from sanbu.space import IGNORED, Space

Record = dict[str, Any]


class Labelled(DataConfig):
    """Texts with labels, in the forms of GPT-1's fine-tuning."""

    kind: Literal["labelled"] = "labelled"
    path: str = Field("skills", description="JSONL, CSV or TSV; skills: which skill a question asks for")
    task: Literal["classification", "entailment", "similarity", "choice", "regression"] = "classification"
    text: str = Field("text", description="the field of the text, or of the first of two")
    second: str = Field("second", description="the field of the second text, or of the list of choices")
    label: str = Field(
        "label", description="the field of the label: a name, a number, or the index of the right choice"
    )
    labels: tuple[str, ...] | Literal["auto"] = Field("auto", description="the names of the labels")
    tokenizer: TokenizerConfig = Field(Byte(), description="that of the run one starts from")
    context: int = Field(128, ge=8, description="tokens at most; longer texts are cut")
    validation: float = Field(0.1, ge=0, lt=1, description="share of the texts held out, by a hash of the text")

    def space(self) -> Space:
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end(), classes=len(self.names()))

    def names(self) -> list[str]:
        """The labels' names; none where there are no classes."""
        if self.labels != "auto":
            return list(self.labels)
        return look(self)

    def resolve(self) -> Labelled:
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve(), "labels": tuple(self.names())})

    def build(self) -> Data:
        return LabelledRows(self)

    def codec(self, folder: Path) -> Codec:
        return LabelCodec(self.tokenizer.load(folder), self.names())


class LabelledRows:
    """Rows of text with a label each."""

    def __init__(self, config: Labelled) -> None:
        self.config = config
        self.codec = LabelCodec(config.tokenizer.build(()), config.names())
        about = json.dumps([1, conversations.fingerprint(config.path), dump(config), config.tokenizer.fingerprint()])
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
        written = [
            [self.codec.write(side, self.config.context) for side in sides(record, self.config)] for record in chosen
        ]
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
        return torch.tensor(
            [int(value) if self.config.task == "choice" else names.index(str(value)) for value in values]
        )


def sides(record: Record, config: Labelled) -> list[tuple[str, ...]]:
    """What is read of a record, one entry a sequence."""
    text = str(record[config.text])
    if config.task in ("classification", "regression"):
        return [(text,)]
    if config.task == "choice":
        return [(text, str(choice)) for choice in record[config.second]]
    other = str(record[config.second])
    return [(text, other)] if config.task == "entailment" else [(text, other), (other, text)]


def records(path: str) -> list[Record]:
    """Records of JSONL, CSV or TSV, gzipped or not; for `skills`, questions with their skill. Raises SourceError."""
    if path == "skills":
        from sanbu.data.builtin import skills

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


def look(config: Labelled) -> list[str]:
    """The names of the labels, sorted. Raises SanbuError when a field is missing."""
    found = records(config.path)
    wanted = [
        config.text,
        config.label,
        *([config.second] if config.task in ("entailment", "similarity", "choice") else []),
    ]
    for name in wanted:
        if not found or name not in found[0]:
            fields = list(found[0]) if found else []
            raise SanbuError(
                f"data.path: {config.path!r} has no field {name!r}; fields: {', '.join(fields)}{nearest(name, fields)}"
            )
    return [] if config.task in ("regression", "choice") else sorted({str(record[config.label]) for record in found})


def chance(record: Record, config: Labelled) -> float:
    """A number in [0, 1) that only the text decides."""
    text = json.dumps([record[config.text], record.get(config.second)], ensure_ascii=False)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)

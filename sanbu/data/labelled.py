"""Labelled text in the input formats of GPT-1 (Radford and others, 2018): rows of tokens_BKT with label_B.

classification  start text extract                                K = 1
entailment      start first delimiter second extract              K = 1
similarity      start first delimiter second extract              K = 2, both orders
choice          start first delimiter choice extract              K = the number of choices
regression      start text extract                                K = 1, the label is a number

last_BK is the position of the extract token, whose hidden state is scored. targets_BKT are the next tokens, for the
auxiliary language modelling loss.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
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

Example = dict[str, Any]


class Labelled(DataConfig):
    """Texts with labels, in the input formats of GPT-1."""

    kind: Literal["labelled"] = "labelled"
    path: str = Field("skills", description="JSONL, CSV or TSV; skills: built-in questions, labelled by their skill")
    task: Literal["classification", "entailment", "similarity", "choice", "regression"] = "classification"
    text: str = Field("text", description="field of the text, or of the first of two texts")
    second: str = Field("second", description="field of the second text, or of the list of choices")
    label: str = Field("label", description="field of the label: a name, a number, or the index of the right choice")
    labels: tuple[str, ...] | Literal["auto"] = Field("auto", description="names of the labels; auto reads the data")
    tokenizer: TokenizerConfig = Field(Byte(), description="tokenizer of the parent run")
    context: int = Field(128, ge=8, description="most tokens per text; longer texts are cut")
    validation: float = Field(0.1, ge=0, lt=1, description="fraction of the texts held out, by a hash of the text")

    def space(self) -> Space:
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end(), classes=len(self.names()))

    def names(self) -> list[str]:
        """The names of the labels; an empty list for tasks without classes."""
        if self.labels != "auto":
            return list(self.labels)
        return label_names(self)

    def resolve(self) -> Labelled:
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve(), "labels": tuple(self.names())})

    def build(self) -> Data:
        return LabelledRows(self)

    def codec(self, folder: Path) -> Codec:
        return LabelCodec(self.tokenizer.load(folder), self.names())


class LabelledRows:
    """Rows of text, each with a label."""

    def __init__(self, config: Labelled) -> None:
        self.config = config
        self.codec = LabelCodec(config.tokenizer.build(()), config.names())
        about = json.dumps([1, conversations.fingerprint(config.path), dump(config), config.tokenizer.fingerprint()])
        self.fingerprint = "labelled-" + hashlib.sha256(about.encode()).hexdigest()[:24]
        found = records(config.path)
        check_records(found, config)
        self.parts: dict[str, list[Example]] = {"train": [], "held_out": []}
        for record in found:
            self.parts["held_out" if hash_chance(record, config) < config.validation else "train"].append(record)
        self.rows, self.held_out_rows = len(self.parts["train"]), len(self.parts["held_out"])
        if not self.rows:
            raise SanbuError(f"data.path: {config.path!r} has no record for training")

    def describe(self) -> str:
        """Numbers of texts and labels."""
        names = self.config.names()
        labels = f"{len(names)} labels" if names else "numbers as labels"
        return f"{self.rows:,} texts with {labels}, {self.held_out_rows:,} held out"

    def batch(self, start: int, size: int) -> dict[str, Tensor]:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))

    def held_out(self, start: int, size: int) -> dict[str, Tensor]:
        """Held-out rows in the order of the file."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _rows(self, part: str, numbers: Iterable[int]) -> dict[str, Tensor]:
        chosen = [self.parts[part][number] for number in numbers]
        rows = [self._sequences(record) for record in chosen]
        width = max(map(len, rows))
        sequences = [ids for row in rows for ids in row + [[0]] * (width - len(row))]
        tokens_BKT = padded(sequences, self.codec.pad).view(len(chosen), width, -1)
        length_BK = torch.tensor([len(ids) for ids in sequences]).view(len(chosen), width)
        position_T = torch.arange(tokens_BKT.shape[2])
        next_BKT = torch.nn.functional.pad(tokens_BKT[..., 1:], (0, 1))
        targets_BKT = torch.where(position_T < length_BK[..., None] - 2, next_BKT, IGNORED)
        label = self._labels(chosen)
        return {"tokens": tokens_BKT, "targets": targets_BKT, "last": length_BK - 1, "label": label}

    def _sequences(self, record: Example) -> list[list[int]]:
        return [self.codec.write(texts, self.config.context) for texts in sequences_of(record, self.config)]

    def _labels(self, chosen: list[Example]) -> Tensor:
        values = [record[self.config.label] for record in chosen]
        if self.config.task == "regression":
            return torch.tensor([float(value) for value in values])
        if self.config.task == "choice":
            return torch.tensor([int(float(value)) for value in values])
        names = self.config.names()
        return torch.tensor([names.index(str(value)) for value in values])


def sequences_of(record: Example, config: Labelled) -> list[tuple[str, ...]]:
    """The texts of each input sequence of a record."""
    text = str(record[config.text])
    if config.task in ("classification", "regression"):
        return [(text,)]
    if config.task == "choice":
        return [(text, str(choice)) for choice in record[config.second]]
    other = str(record[config.second])
    return [(text, other)] if config.task == "entailment" else [(text, other), (other, text)]


def check_records(found: list[Example], config: Labelled) -> None:
    """Raise SanbuError in one line for the first record whose fields do not fit the task."""
    names = set(config.names())
    for number, record in enumerate(found, 1):
        where = f"data.path: {config.path!r}, record {number}"
        for name in fields_of(config):
            if record.get(name) is None or (name == config.label and str(record[name]).strip() == ""):
                raise SanbuError(
                    f"{where}: the field {name!r} is missing or empty; fields: {', '.join(map(str, record))}"
                )
        label = record[config.label]
        if config.task == "regression" and not is_number(label):
            raise SanbuError(f"{where}: label {label!r} is not a number; regression needs numbers")
        if config.task == "choice":
            check_choice(record, config, where)
        if config.task not in ("regression", "choice") and str(label) not in names:
            allowed = ", ".join(sorted(names)) or "none, as data.labels is empty"
            raise SanbuError(f"{where}: label {label!r}, allowed: {allowed}{nearest(str(label), names)}")


def check_choice(record: Example, config: Labelled, where: str) -> None:
    """Raise SanbuError if a record of task=choice has no list of choices, or no index of one of them as its label."""
    choices, label = record[config.second], record[config.label]
    if not isinstance(choices, list) or not choices:
        raise SanbuError(f"{where}: the field {config.second!r} must be a list of choices")
    if not is_number(label) or float(label) not in range(len(choices)):
        raise SanbuError(f"{where}: label {label!r}, allowed: 0 to {len(choices) - 1}, the index of the right choice")


def is_number(value: Any) -> bool:
    """Whether a label is a finite number, or a text that reads as one."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def fields_of(config: Labelled) -> list[str]:
    """The fields that every record needs."""
    pairs = config.task in ("entailment", "similarity", "choice")
    return [config.text, config.label, *([config.second] if pairs else [])]


def records(path: str) -> list[Example]:
    """Records of JSONL, CSV or TSV files, or of `skills`: questions with their skill. Raises SourceError."""
    if path == "skills":
        from sanbu.data.builtin import skills

        return [{"text": found.text, "label": found.skill} for found in skills.by_text().values()]
    found: list[Example] = []
    for file in sources.files(path):
        suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
        if suffixes[-1:] in ([".csv"], [".tsv"]):
            text = io.StringIO(sources.decode_text(file, sources.read_unzipped(file)))
            tabs: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffixes[-1] == ".tsv" else {}
            with sources.readable(file):
                found += csv.DictReader(text, **tabs)
        else:
            found += [record for _, record in conversations.lines(file)]
    return found


def label_names(config: Labelled) -> list[str]:
    """The names of the labels in the data, sorted. Raises SanbuError when a field is missing."""
    found = records(config.path)
    for name in fields_of(config):
        if not found or name not in found[0]:
            fields = list(found[0]) if found else []
            raise SanbuError(
                f"data.path: {config.path!r} has no field {name!r}; fields: {', '.join(fields)}{nearest(name, fields)}"
            )
    if config.task in ("regression", "choice"):
        return []
    labels = {str(record.get(config.label)) for record in found if record.get(config.label) is not None}
    return sorted(label for label in labels if label.strip())


def hash_chance(record: Example, config: Labelled) -> float:
    """A hash of the text as a number in [0, 1)."""
    text = json.dumps([record[config.text], record.get(config.second)], ensure_ascii=False)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)

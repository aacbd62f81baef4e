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

import hashlib
import json
import math
import re
from collections import Counter
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
from sanbu.data import conversations
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.order import shuffled
from sanbu.data.record_files import Row, text_in, told
from sanbu.data.sources import BUILT_IN, built_in, full_name
from sanbu.noise import mix_int
from sanbu.space import IGNORED, Batch, Space

CHOICES = 4  # of a question, where its memory is counted without reading the data
Located = tuple[str, Row]  # a record, after its file and line
WHOLE = re.compile(r"^([+-]?[0-9]+)\.0*$")  # a whole number as tables of floats write it


class Labelled(DataConfig):
    """Texts with labels, in the input formats of GPT-1."""

    kind: Literal["labelled"] = "labelled"
    path: str = Field(
        "builtin:skills",
        description="file, folder or hub:NAME (JSON, CSV, TSV, Parquet); builtin:skills: questions, labelled by skill",
    )
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
            return [label_of(label, "data.labels") for label in self.labels]
        return label_names(self)

    def resolve(self) -> Labelled:
        known = {"path": full_name(self.path, "skills"), "labels": tuple(self.names())}
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve(), **known})

    def build(self) -> Data:
        return LabelledRows(self)

    def example(self, rows: int) -> Batch:
        shape = (rows, {"similarity": 2, "choice": CHOICES}.get(self.task, 1), self.context)
        label = no_tokens(rows) if self.task != "regression" else no_tokens(rows).float()
        tokens = {"tokens": no_tokens(*shape), "targets": no_tokens(*shape), "last": no_tokens(*shape[:2])}
        return tokens | {"label": label}

    def codec(self, folder: Path) -> Codec:
        return LabelCodec(self.tokenizer.load(folder), self.names())


class LabelledRows:
    """Rows of text, each with a label."""

    def __init__(self, config: Labelled) -> None:
        self.config = config
        self.codec = LabelCodec(config.tokenizer.build(()), config.names())
        described = dump(config) | {"path": config.path.removeprefix(BUILT_IN)}
        about = json.dumps([1, conversations.fingerprint_of(config.path), described, config.tokenizer.fingerprint()])
        self.fingerprint = "labelled-" + hashlib.sha256(about.encode()).hexdigest()[:24]
        self.left_out: Counter[str] = Counter()
        found = records(config.path, self.left_out)
        check_records(found, config)
        self.parts: dict[str, list[Row]] = {"train": [], "held_out": []}
        for _, record in found:
            self.parts["held_out" if hash_chance(record, config) < config.validation else "train"].append(record)
        self.rows, self.held_out_rows = len(self.parts["train"]), len(self.parts["held_out"])
        if not self.rows:
            raise SanbuError(f"data.path: {config.path!r} has no record for training")

    def describe(self) -> str:
        """Numbers of texts and labels."""
        names = self.config.names()
        labels = f"{len(names)} labels" if names else "numbers as labels"
        return f"{self.rows:,} texts with {labels}, {self.held_out_rows:,} held out{told(self.left_out)}"

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

    def _sequences(self, record: Row) -> list[list[int]]:
        return [self.codec.write(texts, self.config.context) for texts in sequences_of(record, self.config)]

    def _labels(self, chosen: list[Row]) -> Tensor:
        values = [record[self.config.label] for record in chosen]
        if self.config.task == "regression":
            return torch.tensor([float(value) for value in values])
        if self.config.task == "choice":
            return torch.tensor([int(float(value)) for value in values])
        names = self.config.names()
        return torch.tensor([names.index(label_of(value, "label")) for value in values])


def sequences_of(record: Row, config: Labelled) -> list[tuple[str, ...]]:
    """The texts of each input sequence of a record."""
    text = str(record[config.text])
    if config.task in ("classification", "regression"):
        return [(text,)]
    if config.task == "choice":
        return [(text, str(choice)) for choice in record[config.second]]
    other = str(record[config.second])
    return [(text, other)] if config.task == "entailment" else [(text, other), (other, text)]


def check_records(found: list[Located], config: Labelled) -> None:
    """Raise SanbuError in one line for the first record whose fields do not fit the task."""
    names = set(config.names())
    for where, record in found:
        for name in fields_of(config):
            check_field(record, name, where)
        if config.task == "choice":
            check_choice(record, config, where)
        for name in (config.text, *([config.second] if config.task in ("entailment", "similarity") else [])):
            text_in(record, name, where)
        label = record[config.label]
        if config.task == "regression" and not is_number(label):
            raise SanbuError(f"{where}: label {label!r} is not a number; regression needs numbers")
        if config.task not in ("regression", "choice") and label_of(label, where) not in names:
            allowed = ", ".join(sorted(names)) or "none, as data.labels is empty"
            raise SanbuError(f"{where}: label {label!r}, allowed: {allowed}{nearest(str(label), names)}")


def check_field(record: Row, name: str, where: str) -> None:
    """Raise SanbuError if a record has no value in a field."""
    if record.get(name) is None:
        fields = list(map(str, record))
        missing = "null" if name in record else "missing"
        raise SanbuError(
            f"{where}: the field {name!r} is {missing}; fields: {', '.join(fields)}{nearest(name, fields)}"
        )


def check_choice(record: Row, config: Labelled, where: str) -> None:
    """Raise SanbuError if a record of task=choice has no list of choices, or no index of one of them as its label."""
    choices, label = record[config.second], record[config.label]
    if not isinstance(choices, list) or not choices or not all(isinstance(each, (str, int, float)) for each in choices):
        raise SanbuError(f"{where}: the field {config.second!r} must be a list of choices, each a text or a number")
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


def records(path: str, left_out: Counter[str] | None = None) -> list[Located]:
    """(where, record) of files, of hub:NAME or of builtin:skills, questions with their skill. Raises SourceError."""
    if not built_in(path, "skills"):
        return list(conversations.rows(path, left_out))
    from sanbu.data.builtin import skills

    found = enumerate(skills.by_text().values())
    return [(f"skills, question {number}", {"text": each.text, "label": each.skill}) for number, each in found]


def label_names(config: Labelled) -> list[str]:
    """The names of the labels in the data, sorted. Raises SanbuError for a record without a label."""
    found = records(config.path)
    if not found:
        raise SanbuError(f"data.path: {config.path!r} has no record")
    for name in fields_of(config):
        where, first = found[0]
        check_field(first, name, where)
    if config.task in ("regression", "choice"):
        return []
    labels = [(where, record.get(config.label)) for where, record in found]
    truths = {isinstance(label, bool) for _, label in labels}
    if len(truths) > 1:
        where, label = next(pair for pair in labels if isinstance(pair[1], bool))
        raise SanbuError(f"{where}: label {label!r}, but other records have labels that are not true or false")
    return sorted({label_of(label, where) for where, label in labels})


def label_of(value: Any, where: str) -> str:
    """The name of a label: 1, 1.0, "1" and " 1.0" are one. Raises SanbuError for none, and for what is no name."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = WHOLE.sub(r"\1", str(value).strip())
    if value is None or value != value or not name:
        raise SanbuError(f"{where}: the label is missing or empty; give the record a label or leave it out")
    if not isinstance(value, (str, int, float)):
        raise SanbuError(f"{where}: the label is of type {type(value).__name__}; allowed: a name or a number")
    return name


def hash_chance(record: Row, config: Labelled) -> float:
    """A hash of the text as a number in [0, 1)."""
    text = json.dumps([record[config.text], record.get(config.second)], ensure_ascii=False)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)

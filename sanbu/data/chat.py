"""Conversations as rows of tokens: whole conversations packed into rows, kept apart, and only answers taught."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from sanbu.codecs.chat import ChatCodec, ConversationError, Rendered, TemplateConfig, Turns
from sanbu.codecs.codec import Codec
from sanbu.codecs.text import padded
from sanbu.codecs.tokenizer import Byte, TokenizerConfig, padding_of
from sanbu.config import SanbuError, dump
from sanbu.data import conversations
from sanbu.data.conversations import Record
from sanbu.data.data import Data, DataConfig
from sanbu.data.order import shuffled
from sanbu.data.text_rows import Text
from sanbu.space import IGNORED, Batch, Space


class ConversationConfig(DataConfig):
    """What all data of conversations has in common."""

    measure: ClassVar[str] = "answers"
    path: str = Field("skills", description="JSONL of conversations or preferences; skills: questions made here")
    tokenizer: TokenizerConfig = Field(Byte(), description="that of the run one starts from")
    template: TemplateConfig = Turns()
    context: int = Field(128, ge=8, description="tokens at most")
    validation: float = Field(
        0.05, ge=0, lt=1, description="share of the questions held out, by a hash of the question"
    )
    too_long: Literal["refuse", "drop"] = Field("refuse", description="what becomes of a record that does not fit")

    def space(self) -> Space:
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end())

    def resolve(self) -> Self:
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve(), "template": self.template.resolve()})

    def codec(self, folder: Path) -> Codec:
        return ChatCodec(self.tokenizer.load(folder), self.template)


class Split:
    """What all data of conversations has: records in two parts, a codec, a fingerprint."""

    def __init__(self, config: ConversationConfig) -> None:
        self.config, self.space = config, config.space()
        self.codec = ChatCodec(config.tokenizer.build(()), config.template)
        self.pad = padding_of(self.codec.tokenizer)
        about = json.dumps([1, conversations.fingerprint(config.path), dump(config), config.tokenizer.fingerprint()])
        self.fingerprint = f"{dump(config)['kind']}-" + hashlib.sha256(about.encode()).hexdigest()[:24]
        self.train: list[Record] = []
        self.held_out_records: list[Record] = []
        for record in conversations.records(config.path):
            held = record.held_out_chance < config.validation
            (self.held_out_records if held else self.train).append(record)
        if not self.train:
            raise SanbuError(f"data.path: {config.path!r} holds no record to learn from")
        if hasattr(self.codec.template, "learn"):
            self.codec.template.learn(sorted(texts(self.train + self.held_out_records)))

    def whole(self, ids: Sequence[int], record: Record, room: int) -> bool:
        """Whether a rendered record fits. Raises ConversationError when it does not and data.too_long refuses."""
        if len(ids) <= room:
            return True
        if self.config.too_long == "refuse":
            raise ConversationError(
                f"{record.where}: {len(ids)} tokens, but data.context is {self.config.context};"
                " raise it, or set data.too_long=drop"
            )
        return False


class Chat(ConversationConfig):
    """Conversations to imitate: only what the assistant says is taught."""

    kind: Literal["chat"] = "chat"

    def build(self) -> Data:
        return ChatRows(self)


class ChatRows(Split):
    """Rows of `context` tokens that hold whole conversations; targets are -100 but for what the assistant says.

    A row is filled best fit, longest first, so that little of it is padding. positions_BT restart at 0 with each
    conversation.
    """

    def __init__(self, config: Chat) -> None:
        super().__init__(config)
        self.parts = {"train": self._pack(self.train), "held_out": self._pack(self.held_out_records)}
        self.rows, self.held_out_rows = (len(rows) for _, rows in self.parts.values())
        if not self.rows:
            raise SanbuError(
                f"data.path: {config.path!r} holds no conversation that fits in data.context={config.context}"
            )

    def describe(self) -> str:
        """How many conversations, how full the rows are, how much is taught."""
        held, rows = self.parts["train"]
        tokens = sum(len(ids) for ids, _ in held)
        taught = sum(sum(mask) for _, mask in held)
        fill = tokens / (len(rows) * self.config.context)
        counts = f"{len(held):,} conversations in {len(rows):,} rows, {fill:.0%} full"
        return f"{counts}, loss on {taught / tokens:.0%} of the tokens"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in their own order."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _pack(self, records: list[Record]) -> tuple[list[Rendered], list[list[int]]]:
        rendered = [rendering for record in records if (rendering := self._render(record)) is not None]
        return rendered, packed([len(ids) for ids, _ in rendered], self.config.context)

    def _render(self, record: Record) -> Rendered | None:
        best = record.demonstration or min(zip(record.ranks, record.answers, strict=True), default=(0, ""))[1]
        messages = [*record.prompt, {"role": "assistant", "content": best}] if best else list(record.prompt)
        if all(message["role"] != "assistant" for message in messages):
            raise ConversationError(f"{record.where}: no assistant turn, so nothing can be learnt from it")
        ids, taught = self.codec.template.render(messages)
        return (ids, taught) if self.whole(ids, record, self.config.context) else None

    def _rows(self, part: str, numbers: Iterable[int]) -> Batch:
        rendered, rows = self.parts[part]
        chosen, context = [rows[number] for number in numbers], self.config.context
        tokens = np.full((len(chosen), context), self.pad, dtype=np.int64)
        targets = np.full((len(chosen), context), IGNORED, dtype=np.int64)
        positions = np.zeros((len(chosen), context), dtype=np.int64)
        for number, row in enumerate(chosen):
            at = 0
            for index in row:
                ids, taught = map(np.array, rendered[index])
                tokens[number, at : at + len(ids)] = ids
                end = at + len(ids)
                targets[number, at : end - 1] = np.where(taught[1:], ids[1:], IGNORED)
                positions[number, at : at + len(ids)] = np.arange(len(ids))
                at += len(ids)
            positions[number, at:] = np.arange(context - at)
        return {
            name: torch.from_numpy(a)
            for name, a in (("tokens", tokens), ("targets", targets), ("positions", positions))
        }


class Prompts(ConversationConfig):
    """Questions to answer, for learning from one's own answers."""

    kind: Literal["prompts"] = "prompts"
    answer: int = Field(48, ge=1, description="tokens kept free for the answer")
    mix: Text | None = Field(None, description="text to go on learning from beside the answers (InstructGPT's ptx)")

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.answer >= self.context:
            raise ValueError(f"data.answer: given {self.answer}, but data.context is {self.context}")
        return self

    def build(self) -> Data:
        return PromptRows(self)


class PromptRows(Split):
    """Questions to answer: tokens_BP padded on the right, length_B, and the known right answer_BA (-1: padding).

    With data.mix, each row also holds a row of text to go on learning from: mix_tokens, mix_targets and their
    positions.
    """

    def __init__(self, config: Prompts) -> None:
        super().__init__(config)
        self.room = config.context - config.answer
        self.asked = {"train": self._ask(self.train), "held_out": self._ask(self.held_out_records)}
        self.rows, self.held_out_rows = (len(prompts) for prompts in self.asked.values())
        self.mix: Any = config.mix.build() if config.mix is not None else None

    def describe(self) -> str:
        """How many questions, and how many whose answer is known."""
        known = sum(bool(answer) for _, answer in self.asked["train"])
        return f"{self.rows:,} questions, {known:,} with a known answer, and {self.held_out_rows:,} held out"

    def batch(self, start: int, size: int) -> Batch:
        """Questions at positions start .. start + size - 1 of the endless training order."""
        batch = self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))
        if self.mix is None:
            return batch
        return batch | {
            f"mix_{name}": tensor for name, tensor in self.mix.batch(start, size).items() if name != "bytes"
        }

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out questions in their own order."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _ask(self, records: list[Record]) -> list[tuple[list[int], list[int]]]:
        known = [self.codec.tokenizer.encode_batch([record.answer for record in records])] if records else [[]]
        asked = [
            (self.codec.template.ask(record.prompt), answer.tolist())
            for record, answer in zip(records, known[0], strict=True)
        ]
        pairs = zip(records, asked, strict=True)
        return [pair for record, pair in pairs if self.whole(pair[0], record, self.room)]

    def _rows(self, part: str, numbers: Iterable[int]) -> Batch:
        chosen = [self.asked[part][number] for number in numbers]
        length = torch.tensor([len(prompt) for prompt, _ in chosen])
        prompts, answers = (
            padded([prompt for prompt, _ in chosen], self.pad),
            padded([answer for _, answer in chosen], -1),
        )
        return {"tokens": prompts, "length": length, "answer": answers}


def packed(lengths: list[int], room: int) -> list[list[int]]:
    """Which pieces go into which row: the longest first, each into the fullest row that still has room."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(room + 1)]  # rows by the room they have left
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        size = lengths[index]
        left = next((left for left in range(size, room + 1) if open_rows[left]), None)
        if left is None:
            rows.append([])
            number, left = len(rows) - 1, room
        else:
            number = open_rows[left].pop()
        rows[number].append(index)
        open_rows[left - size].append(number)
    return rows


def texts(records: Iterable[Record]) -> set[str]:
    """Everything that is said in these records."""
    said = {message["content"] for record in records for message in record.prompt}
    return said | {answer for record in records for answer in (*record.answers, record.demonstration)}

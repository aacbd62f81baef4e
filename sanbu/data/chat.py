"""Conversations as rows of tokens: whole conversations packed into rows, with a loss on the answers only."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
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
from sanbu.data.conversation_formats import Record
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.order import shuffled
from sanbu.data.record_files import told
from sanbu.data.sources import BUILT_IN
from sanbu.data.text_rows import Text
from sanbu.space import IGNORED, Batch, Space


class ConversationConfig(DataConfig):
    """Fields that all data made of conversations share."""

    measure: ClassVar[str] = "answers"
    path: str = Field(
        "builtin:skills",
        description="file, folder or hub:NAME of conversations or preferences, several with commas;"
        " builtin:skills: questions with answers",
    )
    tokenizer: TokenizerConfig = Field(Byte(), description="tokenizer of the parent run")
    template: TemplateConfig = Turns()
    context: int = Field(128, ge=8, description="most tokens per row")
    validation: float = Field(
        0.05, ge=0, lt=1, description="fraction of the questions held out, by a hash of the question"
    )
    too_long: Literal["refuse", "drop"] = Field("refuse", description="what to do with records that do not fit")

    def space(self) -> Space:
        end, others = self.template.end_id(self.tokenizer), self.tokenizer.other_ends()
        return Space((self.context,), self.tokenizer.size(), end, other_ends=others)

    def resolve(self) -> Self:
        template = self.template.resolve(self.tokenizer)
        path = conversations.full_names(self.path)
        return self.model_copy(update={"path": path, "tokenizer": self.tokenizer.resolve(), "template": template})

    def codec(self, folder: Path) -> Codec:
        return ChatCodec(self.tokenizer.load(folder), self.template)


class ConversationRows:
    """What all rows made of conversations share: training and held-out records, a codec, a fingerprint."""

    def __init__(self, config: ConversationConfig) -> None:
        self.config, self.space = config, config.space()
        self.codec = ChatCodec(config.tokenizer.build(()), config.template)
        self.pad = padding_of(self.codec.tokenizer)
        more = [found for found in [config.template.fingerprint()] if found]
        described = dump(config) | {"path": config.path.replace(BUILT_IN, "")}
        about = [1, conversations.fingerprint(config.path), described, config.tokenizer.fingerprint(), *more]
        self.fingerprint = f"{dump(config)['kind']}-" + hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
        self.train: list[Record] = []
        self.held_out_records: list[Record] = []
        self.dropped: Counter[str] = Counter()  # how many records were left out, by reason
        for record in conversations.records(config.path, self.dropped):
            if record.left_out:
                self.dropped[record.left_out] += 1
                continue
            held = record.held_out_chance < config.validation
            (self.held_out_records if held else self.train).append(record)
        if not self.train:
            raise SanbuError(f"data.path: {config.path!r} has no record for training{self.drops()}")
        if hasattr(self.codec.template, "learn"):
            self.codec.template.learn(sorted(texts(self.train + self.held_out_records)))

    def fits(self, ids: Sequence[int], record: Record, room: int) -> bool:
        """Whether a rendered record fits. Raises ConversationError when it does not and data.too_long refuses."""
        if len(ids) <= room:
            return True
        if self.config.too_long == "refuse":
            reserved = self.config.context - room
            answer = f" and {reserved} for the answer" if reserved > 0 else ""
            raise ConversationError(
                f"{record.where}: {len(ids)} tokens{answer}, but data.context is {self.config.context};"
                " raise it, or set data.too_long=drop"
            )
        self.dropped["too long"] += 1
        return False

    def drops(self) -> str:
        """How many records were left out and why, for `describe`; empty if none."""
        return told(self.dropped)


class Chat(ConversationConfig):
    """Conversations to imitate; only what the assistant says has a loss."""

    kind: Literal["chat"] = "chat"

    def example(self, rows: int) -> Batch:
        return {name: no_tokens(rows, self.context) for name in ("tokens", "targets", "positions")}

    def build(self) -> Data:
        return ChatRows(self)


class ChatRows(ConversationRows):
    """Rows of `context` tokens that contain whole conversations; targets are -100 except where the assistant speaks.

    Conversations are packed by best fit, longest first, which leaves little padding. positions_BT restart at 0 with
    each conversation.
    """

    def __init__(self, config: Chat) -> None:
        super().__init__(config)
        self.parts = {"train": self._pack(self.train), "held_out": self._pack(self.held_out_records)}
        self.rows, self.held_out_rows = (len(rows) for _, rows in self.parts.values())
        if not self.rows:
            raise SanbuError(
                f"data.path: {config.path!r} has no conversation that fits in data.context={config.context}"
            )

    def describe(self) -> str:
        """Number of conversations, fill of the rows, fraction of tokens with a loss."""
        held, rows = self.parts["train"]
        tokens = sum(len(ids) for ids, _ in held)
        taught = sum(sum(mask) for _, mask in held)
        fill = tokens / (len(rows) * self.config.context)
        counts = f"{len(held):,} conversations in {len(rows):,} rows, {fill:.0%} full"
        return f"{counts}, loss on {taught / tokens:.0%} of the tokens{self.drops()}"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in a fixed order."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _pack(self, records: list[Record]) -> tuple[list[Rendered], list[list[int]]]:
        found = [self._render(record) for record in records]
        rendered = [rendering for rendering in found if rendering is not None]
        return rendered, pack_rows([len(ids) for ids, _ in rendered], self.config.context)

    def _render(self, record: Record) -> Rendered | None:
        messages = list(record.prompt)
        if record.answers:
            _, best = min(zip(record.ranks, record.answers, strict=True))
            messages.append({"role": "assistant", "content": record.demonstration or best})
        if all(message["role"] != "assistant" or message.get("weight") == 0 for message in messages):
            raise ConversationError(f"{record.where}: no assistant turn to learn from")
        ids, taught = self.codec.template.render(messages)
        if not any(taught):
            raise ConversationError(f"{record.where}: the template gives no token of the answer a loss")
        return (ids, taught) if self.fits(ids, record, self.config.context) else None

    def _rows(self, part: str, numbers: Iterable[int]) -> Batch:
        rendered, rows = self.parts[part]
        chosen, context = [rows[number] for number in numbers], self.config.context
        tokens = np.full((len(chosen), context), self.pad, dtype=np.int64)
        targets = np.full((len(chosen), context), IGNORED, dtype=np.int64)
        positions = np.zeros((len(chosen), context), dtype=np.int64)
        for number, row in enumerate(chosen):
            start = 0
            for index in row:
                ids, taught = map(np.array, rendered[index])
                end = start + len(ids)
                tokens[number, start:end] = ids
                targets[number, start : end - 1] = np.where(taught[1:], ids[1:], IGNORED)
                positions[number, start:end] = np.arange(len(ids))
                start = end
            positions[number, start:] = np.arange(context - start)
        arrays = {"tokens": tokens, "targets": targets, "positions": positions}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class Prompts(ConversationConfig):
    """Questions, for learning from the answers of the model itself."""

    kind: Literal["prompts"] = "prompts"
    answer: int = Field(48, ge=1, description="tokens reserved for the answer")
    mix: Text | None = Field(None, description="text for an added pretraining loss (ptx of InstructGPT)")

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.answer >= self.context:
            raise ValueError(f"data.answer: given {self.answer}, allowed: less than data.context ({self.context})")
        return self

    def example(self, rows: int) -> Batch:
        room, text = self.context - self.answer, self.mix.example(rows) if self.mix is not None else {}
        batch = {"tokens": no_tokens(rows, room), "length": no_tokens(rows), "answer": no_tokens(rows, self.answer)}
        return batch | {f"mix_{name}": tensor for name, tensor in text.items() if name != "bytes"}

    def build(self) -> Data:
        return PromptRows(self)


class PromptRows(ConversationRows):
    """Questions: tokens_BP padded on the right, length_B, and the known right answer_BA, where -1 is padding.

    With data.mix, each row also has a row of text for the pretraining loss: mix_tokens, mix_targets, mix_positions.
    """

    def __init__(self, config: Prompts) -> None:
        super().__init__(config)
        self.room = config.context - config.answer
        self.questions = {"train": self._ask(self.train), "held_out": self._ask(self.held_out_records)}
        self.rows, self.held_out_rows = (len(prompts) for prompts in self.questions.values())
        self.mix: Any = config.mix.build() if config.mix is not None else None

    def describe(self) -> str:
        """Numbers of questions, of known answers, and of held-out questions."""
        known = sum(bool(answer) for _, answer in self.questions["train"])
        counts = f"{self.rows:,} questions, {known:,} with a known answer, and {self.held_out_rows:,} held out"
        return counts + self.drops()

    def batch(self, start: int, size: int) -> Batch:
        """Questions at positions start .. start + size - 1 of the endless training order."""
        batch = self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))
        if self.mix is not None:
            text = self.mix.batch(start, size)
            batch |= {f"mix_{name}": tensor for name, tensor in text.items() if name != "bytes"}
        return batch

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out questions in the order of the file."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _ask(self, records: list[Record]) -> list[tuple[list[int], list[int]]]:
        if not records:
            return []
        answers = self.codec.tokenizer.encode_batch([record.answer for record in records])
        questions = []
        for record, answer in zip(records, answers, strict=True):
            prompt = self.codec.template.ask(record.prompt)
            if self.fits(prompt, record, self.room):
                questions.append((prompt, answer.tolist()))
        return questions

    def _rows(self, part: str, numbers: Iterable[int]) -> Batch:
        chosen = [self.questions[part][number] for number in numbers]
        prompts, answers = [prompt for prompt, _ in chosen], [answer for _, answer in chosen]
        length = torch.tensor([len(prompt) for prompt in prompts])
        return {"tokens": padded(prompts, self.pad), "length": length, "answer": padded(answers, -1)}


def pack_rows(lengths: list[int], room: int) -> list[list[int]]:
    """The items of each row by best fit: longest first, each into the fullest row that still has room for it."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(room + 1)]  # row numbers by the room left
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
    """The contents of all messages and answers of these records."""
    prompts = {message["content"] for record in records for message in record.prompt}
    return prompts | {answer for record in records for answer in (*record.answers, record.demonstration)}

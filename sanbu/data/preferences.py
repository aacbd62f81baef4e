"""Preferences as rows: tokens_BKT, the question followed by each of its K answers.

targets_BKT are the next tokens within the answer, its end token included, and -100 elsewhere. last_BK is the position
of the end token, where a reward model scores the answer. rank_BK: 0 is the best, equal ranks are ties, -1 means no
answer. margin_B: by how much better answers are preferred. row_B: the number of the row, negative if held out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.data.chat import ConversationConfig, ConversationRows
from sanbu.data.conversation_formats import Record
from sanbu.data.data import Data, no_tokens
from sanbu.data.order import shuffled
from sanbu.space import IGNORED, Batch

Row = tuple[int, tuple[int, ...]]  # the number of a record, and the numbers of its answers in the row
MULTIPLE = 8  # rows are padded to a multiple of this many tokens


class PreferenceConfig(ConversationConfig):
    """Better and worse answers to the same question."""

    def width(self) -> int:
        """The most answers of a row."""
        raise NotImplementedError

    def example(self, rows: int) -> Batch:
        width, long = self.width(), math.ceil(self.context / MULTIPLE) * MULTIPLE
        batch = {name: no_tokens(rows, width, long) for name in ("tokens", "targets")}
        batch |= {name: no_tokens(rows, width) for name in ("last", "rank")}
        return batch | {"margin": no_tokens(rows).float(), "row": no_tokens(rows)}


class PreferenceRows(ConversationRows):
    """Rows of answers to the same question, rendered on demand, so that millions of pairs need little memory."""

    def __init__(self, config: PreferenceConfig, width: int) -> None:
        super().__init__(config)
        self.width = width
        self.records = {"train": self.train, "held_out": self.held_out_records}
        self.chosen = {part: self._choose(records) for part, records in self.records.items()}
        self.rows, self.held_out_rows = (len(rows) for rows in self.chosen.values())
        if not self.rows:
            example = self.train[0].where
            reason = self.drops().removeprefix(", ") or f"{example} has no better and worse answer"
            raise SanbuError(f"data.path: {config.path!r} has no preference for training: {reason}")

    def answers(self, record: Record) -> list[tuple[int, ...]]:
        """The numbers of the answers in each row of a record."""
        raise NotImplementedError

    def describe(self) -> str:
        """Numbers of questions, rows and held-out rows."""
        rows = f"{self.rows:,} rows of up to {self.width} answers"
        return f"{len(self.train):,} questions, {rows}, {self.held_out_rows:,} held out{self.drops()}"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in the order of the file."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _choose(self, records: list[Record]) -> list[Row]:
        return [
            (number, answers)
            for number, record in enumerate(records)
            for answers in self.answers(record)
            if self._fits(record, answers)
        ]

    def _fits(self, record: Record, answers: tuple[int, ...]) -> bool:
        rendered = (self._whole(record, record.answers[i]) for i in answers)
        return self.fits(max(rendered, key=len), record, self.config.context)

    def _whole(self, record: Record, answer: str) -> list[int]:
        """The ids of question and answer."""
        return self.codec.template.render([*record.prompt, {"role": "assistant", "content": answer}])[0]

    def _render(self, record: Record, answer: str) -> tuple[list[int], int]:
        """The ids of question and answer, and how many of them are those of the question alone."""
        ids, question = self._whole(record, answer), self.codec.template.ask(record.prompt)
        same = (number for number, (ours, theirs) in enumerate(zip(ids, question, strict=False)) if ours != theirs)
        return ids, next(same, len(question))

    def _rows(self, part: str, numbers: Iterable[int]) -> Batch:
        numbers = list(numbers)
        rows = [self.chosen[part][number] for number in numbers]
        records = [self.records[part][record] for record, _ in rows]
        rendered = [
            [self._render(record, record.answers[answer]) for answer in answers]
            for record, (_, answers) in zip(records, rows, strict=True)
        ]
        longest = max(len(ids) for row in rendered for ids, _ in row)
        shape = (len(rows), self.width, math.ceil(longest / MULTIPLE) * MULTIPLE)
        tokens_BKT, targets_BKT = torch.full(shape, self.pad), torch.full(shape, IGNORED)
        last_BK = torch.zeros(shape[:2], dtype=torch.long)
        rank_BK = torch.full(shape[:2], -1)
        for b, row in enumerate(rendered):
            for k, (ids, start) in enumerate(row):
                tokens_BKT[b, k, : len(ids)] = torch.tensor(ids)
                targets_BKT[b, k, start - 1 : len(ids) - 1] = torch.tensor(ids[start:])
                last_BK[b, k] = len(ids) - 1
            ranks = [records[b].ranks[answer] for answer in rows[b][1]]
            rank_BK[b, : len(ranks)] = torch.tensor(ranks)
        margin_B = torch.tensor([record.margin for record in records])
        row_B: Tensor = torch.tensor([number if part == "train" else -1 - number for number in numbers])
        answers = {"tokens": tokens_BKT, "targets": targets_BKT, "last": last_BK, "rank": rank_BK}
        return answers | {"margin": margin_B, "row": row_B}


class Rankings(PreferenceConfig):
    """One question per row, with its answers and their ranks."""

    kind: Literal["rankings"] = "rankings"
    answers: int = Field(4, ge=2, description="most answers per question; further ones are ignored")

    def width(self) -> int:
        return self.answers

    def build(self) -> Data:
        return RankingRows(self)


class RankingRows(PreferenceRows):
    """All answers to a question in one row, as in InstructGPT (Ouyang and others, 2022)."""

    def __init__(self, config: Rankings) -> None:
        super().__init__(config, config.answers)

    def answers(self, record: Record) -> list[tuple[int, ...]]:
        chosen = tuple(range(min(len(record.answers), self.width)))
        return [chosen] if len(chosen) > 1 else []


class Pairs(PreferenceConfig):
    """One pair per row, a better and a worse answer, from pairs or from rankings; ties are left out."""

    kind: Literal["pairs"] = "pairs"
    take: Literal["all", "best"] = Field(
        "best", description="all pairs of a ranking, or only those with its best answer"
    )

    def width(self) -> int:
        return 2

    def build(self) -> Data:
        return PairRows(self)


class PairRows(PreferenceRows):
    """Rows of a better and a worse answer."""

    def __init__(self, config: Pairs) -> None:
        self.take = config.take
        super().__init__(config, 2)

    def answers(self, record: Record) -> list[tuple[int, ...]]:
        ranks = record.ranks
        pairs: list[tuple[int, ...]] = [
            (i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]
        ]
        if self.take == "all" or not ranks:
            return pairs
        best = ranks.index(min(ranks))
        return [pair for pair in pairs if pair[0] == best]

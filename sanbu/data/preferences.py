"""Preferences as rows: tokens_BKT of K answers to a question, the question before each; row axis first.

targets_BKT are the answer's tokens, its end included, and -100 elsewhere. last_BK is the place of the end, at which
an answer is judged. rank_BK: 0 is the best, equal ranks are ties, -1 is no answer. margin_B: how much better the
better ones are. row_B: which row it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.data.chat import ConversationConfig, Split
from sanbu.data.conversations import Record
from sanbu.data.data import Data
from sanbu.data.order import shuffled
from sanbu.space import IGNORED, Batch

Row = tuple[int, tuple[int, ...]]  # a record, and which of its answers


class PreferenceConfig(ConversationConfig):
    """Answers to the same question, better and worse."""


class PreferenceRows(Split):
    """Rows of answers to the same question, rendered on demand, so that millions of pairs need no memory."""

    def __init__(self, config: PreferenceConfig, wide: int) -> None:
        super().__init__(config)
        self.wide = wide
        self.records = {"train": self.train, "held_out": self.held_out_records}
        self.chosen = {part: self._choose(records) for part, records in self.records.items()}
        self.rows, self.held_out_rows = (len(rows) for rows in self.chosen.values())
        if not self.rows:
            example = self.train[0].where
            raise SanbuError(
                f"data.path: {config.path!r} holds no preference: {example} has no better and worse answer"
            )

    def answers(self, record: Record) -> list[tuple[int, ...]]:
        """Which answers of a record make its rows."""
        raise NotImplementedError

    def describe(self) -> str:
        """How many questions and rows."""
        rows = f"{self.rows:,} rows of up to {self.wide} answers"
        return f"{len(self.train):,} questions, {rows}, {self.held_out_rows:,} held out"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._rows("train", shuffled(np.arange(start, start + size), self.rows, seed=0))

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in their own order."""
        return self._rows("held_out", range(start, min(start + size, self.held_out_rows)))

    def _choose(self, records: list[Record]) -> list[Row]:
        return [
            (number, answers)
            for number, record in enumerate(records)
            for answers in self.answers(record)
            if self._fits(record, answers)
        ]

    def _fits(self, record: Record, answers: tuple[int, ...]) -> bool:
        longest = max((record.answers[i] for i in answers), key=len)
        return self.whole(self._render(record, longest)[0], record, self.config.context)

    def _render(self, record: Record, answer: str) -> tuple[list[int], int]:
        """Ids of question and answer, and how many of them are the question's."""
        template = self.codec.template
        ids = template.render([*record.prompt, {"role": "assistant", "content": answer}])[0]
        return ids, len(template.ask(record.prompt))

    def _rows(self, part: str, numbers: Iterable[int]) -> Batch:
        numbers = list(numbers)
        rows = [self.chosen[part][number] for number in numbers]
        found = [
            [self._render(self.records[part][n], self.records[part][n].answers[i]) for i in which] for n, which in rows
        ]
        longest = max(len(ids) for each in found for ids, _ in each)
        wide = (len(rows), self.wide, -(-longest // 8) * 8)
        tokens, targets = torch.full(wide, self.pad), torch.full(wide, IGNORED)
        last = torch.zeros(wide[:2], dtype=torch.long)
        rank = torch.full(wide[:2], -1)
        for b, ((n, which), each) in enumerate(zip(rows, found, strict=True)):
            for k, (i, (ids, start)) in enumerate(zip(which, each, strict=True)):
                tokens[b, k, : len(ids)] = torch.tensor(ids)
                targets[b, k, start - 1 : len(ids) - 1] = torch.tensor(ids[start:])
                last[b, k] = len(ids) - 1
                rank[b, k] = self.records[part][n].ranks[i]
        margin = torch.tensor([self.records[part][n].margin for n, _ in rows])
        place: Tensor = torch.tensor([number if part == "train" else -1 - number for number in numbers])
        return {"tokens": tokens, "targets": targets, "last": last, "rank": rank, "margin": margin, "row": place}


class Rankings(PreferenceConfig):
    """A question a row, with all its answers and their ranks."""

    kind: Literal["rankings"] = "rankings"
    answers: int = Field(4, ge=2, description="answers a question at most; the first ones are taken")

    def build(self) -> Data:
        return RankingRows(self)


class RankingRows(PreferenceRows):
    """All answers of a question together, as InstructGPT's reward model sees them (Ouyang and others, 2022)."""

    def __init__(self, config: Rankings) -> None:
        super().__init__(config, config.answers)

    def answers(self, record: Record) -> list[tuple[int, ...]]:
        chosen = tuple(range(min(len(record.answers), self.wide)))
        return [chosen] if len(chosen) > 1 else []


class Pairs(PreferenceConfig):
    """A better and a worse answer a row: every pair of a ranking that is no tie, or one drawn for each."""

    kind: Literal["pairs"] = "pairs"
    take: Literal["all", "best"] = Field(
        "best", description="all pairs of a ranking, or the best against each other one"
    )

    def build(self) -> Data:
        return PairRows(self)


class PairRows(PreferenceRows):
    """A better and a worse answer."""

    def __init__(self, config: Pairs) -> None:
        self.take = config.take
        super().__init__(config, 2)

    def answers(self, record: Record) -> list[tuple[int, ...]]:
        ranks = record.ranks
        best = min(range(len(ranks)), key=ranks.__getitem__, default=0)
        firsts = range(len(ranks)) if self.take == "all" else [best] if ranks else []
        return [(i, j) for i in firsts for j in range(len(ranks)) if ranks[i] < ranks[j]]

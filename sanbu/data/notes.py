"""Scores as rows of tokens. Whole pieces are packed into rows and do not attend to each other.

A piece that is longer than a row is cut at bars; each part begins as a piece does, and the last one alone ends.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from sanbu.codecs.codec import Codec
from sanbu.codecs.music.note_tokens import BEGINS_BAR, END, VOCABULARY, allowed
from sanbu.codecs.music.notes_codec import NotesCodec
from sanbu.config import SanbuError
from sanbu.data.builtin.compositions import NAME
from sanbu.data.chance import chance_of_name
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.music_files import pieces
from sanbu.data.order import shuffled
from sanbu.data.sources import full_name
from sanbu.data.text_rows import document_positions
from sanbu.space import IGNORED, Batch, Space

OPEN = 16  # rows that are filled at once


class Notes(DataConfig):
    """Scores as rows of tokens."""

    measure: ClassVar[str] = "music"
    kind: Literal["notes"] = "notes"
    path: str = Field("music", description="music (pieces by a small grammar), a folder of MIDI files, or one file")
    pieces: int = Field(4000, ge=1, description="number of pieces [music]")
    context: int = Field(512, ge=64, description="tokens per row")
    validation: float = Field(0.05, ge=0, lt=1, description="fraction of pieces held out")

    def space(self) -> Space:
        return Space((self.context,), VOCABULARY, END, grammar=allowed)

    def resolve(self) -> Notes:
        return self.model_copy(update={"path": full_name(self.path, NAME)})

    def example(self, rows: int) -> Batch:
        return {name: no_tokens(rows, self.context) for name in ("tokens", "targets", "positions")}

    def build(self) -> Data:
        return NoteRows(self)

    def codec(self, folder: Path) -> Codec:
        return NotesCodec()


class NoteRows:
    """Rows of tokens [B, T], targets [B, T] and positions [B, T], which restart at 0 with each piece."""

    def __init__(self, config: Notes) -> None:
        self.config = config
        self.names, self.pieces, self.fingerprint = pieces(config.path, config.pieces)
        held = [chance_of_name(name) < config.validation for name in self.names]
        self.train_pieces = [ids for ids, out in zip(self.pieces, held, strict=True) if not out]
        self.held_pieces = [ids for ids, out in zip(self.pieces, held, strict=True) if out]
        if not self.train_pieces:
            raise SanbuError(f"data.path: {config.path!r} has {len(self.pieces)} pieces, and none is left for training")
        self.train, self.held = (packed(each, config) for each in (self.train_pieces, self.held_pieces))
        self.rows, self.held_out_rows = len(self.train), len(self.held)

    @cached_property
    def codec(self) -> NotesCodec:
        """The codec of these rows."""
        return NotesCodec()

    def describe(self) -> str:
        tokens = sum(map(len, self.pieces))
        return (
            f"{len(self.pieces):,} pieces, {tokens:,} tokens: {len(self.train_pieces):,} for training,"
            f" {len(self.held_pieces):,} held out"
        )

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions of the endless training order."""
        places = shuffled(np.arange(start, start + size), self.rows, seed=0)
        return self.together([self.train[place] for place in places])

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows, in order."""
        return self.together(self.held[start : start + size])

    def together(self, rows: list[list[np.ndarray]]) -> Batch:
        """Rows as a batch; END and ignored targets fill up a row."""
        shape = len(rows), self.config.context
        tokens, targets = torch.full(shape, END), torch.full(shape, IGNORED)
        for row, sections in enumerate(rows):
            end = 0
            for ids in sections:
                begin, end = end, end + len(ids) - 1
                tokens[row, begin:end] = torch.from_numpy(ids[:-1].astype(np.int64))
                targets[row, begin:end] = torch.from_numpy(ids[1:].astype(np.int64))
        return {"tokens": tokens, "targets": targets, "positions": document_positions(tokens.eq(END))}


def packed(found: list[np.ndarray], config: Notes) -> list[list[np.ndarray]]:
    """Sections of pieces by row: each goes into the fullest open row that has room for it."""
    rows: list[list[np.ndarray]] = []
    left: list[tuple[int, int]] = []  # room of the open rows, and their numbers
    for ids in found:
        for section in sections_of(ids, config.context):
            needed = len(section) - 1
            fitting = [each for each in left if each[0] >= needed]
            room, number = min(fitting, default=(config.context, len(rows)))
            if number == len(rows):
                rows.append([])
            else:
                left.remove((room, number))
            rows[number].append(section)
            left = sorted([*left, (room - needed, number)])[-OPEN:]
    return rows


def sections_of(ids: np.ndarray, context: int) -> list[np.ndarray]:
    """A piece cut at bars into sequences of at most context + 1 tokens; each begins with END and the tempo.

    Raises SanbuError for a bar that is longer than a row.
    """
    if len(ids) <= context + 1:
        return [ids]
    bars = np.flatnonzero(ids == BEGINS_BAR)
    edges = [*bars.tolist(), len(ids)]
    head, found, start = ids[:2], [], 0
    while start < len(bars):
        most = edges[start] + context - 1
        stop = bisect_right(edges, most) - 1
        if stop == start:
            raise SanbuError(f"data.context: given {context}, but a bar has {edges[start + 1] - edges[start]} tokens")
        found.append(np.concatenate((head, ids[edges[start] : edges[stop]])))
        start = stop
    return found

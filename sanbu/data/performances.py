"""Scores with their sound, played by the synthesiser: what a performer learns from.

A row is a segment: the piano roll of its frames and their log-mel. A hash of the name of a piece decides its split.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from sanbu.codecs.codec import Codec
from sanbu.codecs.music.note_tokens import END, VOCABULARY, allowed, decode
from sanbu.codecs.music.performance_codec import PerformanceCodec
from sanbu.codecs.music.roll import WIDTH, roll
from sanbu.codecs.music.score import Score
from sanbu.codecs.music.synthesiser import RULES, synthesise
from sanbu.config import SanbuError
from sanbu.data.builtin.compositions import NAME
from sanbu.data.cache import cache_folder
from sanbu.data.chance import chance_of_name
from sanbu.data.data import Data, DataConfig
from sanbu.data.music_files import pieces
from sanbu.data.order import shuffled
from sanbu.data.sources import full_name
from sanbu.files import read_json, write_json
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.noise import Noise
from sanbu.progress import progress_rows
from sanbu.space import Batch, Space


class Performances(DataConfig):
    """Scores with their sound."""

    measure: ClassVar[str] = "performances"
    kind: Literal["performances"] = "performances"
    path: str = Field("music", description="music (pieces by a small grammar), a folder of MIDI files, or one file")
    pieces: int = Field(160, ge=1, description="number of pieces [music]")
    mel: Mel = Field(Mel(), description="how a wave becomes a mel; kept in the run")
    segment: int = Field(160, ge=8, description="frames per row")
    validation: float = Field(0.1, ge=0, lt=1, description="fraction of pieces held out")

    def space(self) -> Space:
        return Space((WIDTH,), VOCABULARY, END, mel=self.mel, grammar=allowed)

    def resolve(self) -> Performances:
        return self.model_copy(update={"path": full_name(self.path, NAME)})

    def example(self, rows: int) -> Batch:
        shape = rows, self.segment
        mel = torch.zeros(rows, self.mel.mels, self.segment)
        return {"roll": torch.zeros(*shape, WIDTH), "mel": mel, "frames": torch.full((rows,), self.segment)}

    def build(self) -> Data:
        return PerformanceRows(self)

    def codec(self, folder: Path) -> Codec:
        return PerformanceCodec(self.mel)


class PerformanceRows:
    """Rows of roll [B, T, WIDTH] and mel [B, mels, T], of which `frames` [B] are real."""

    def __init__(self, config: Performances) -> None:
        self.config, self.mel = config, config.mel
        self.names, tokens, source = pieces(config.path, config.pieces)
        self.scores = [known(decode(ids.tolist())) for ids in tokens]
        digest = hashlib.sha256(json.dumps([RULES, source, config.mel.model_dump()]).encode())
        self.fingerprint = f"performances-{digest.hexdigest()[:24]}"
        folder = cache_folder(self.fingerprint, lambda place: store(self.scores, self.mel, place))
        self.mels = np.load(folder / "mels.npy", mmap_mode="r")
        self.starts = np.cumsum([0, *read_json(folder / "frames.json")])
        self.held = [number for number, name in enumerate(self.names) if chance_of_name(name) < config.validation]
        taken = set(self.held)
        self.order = [number for number in range(len(self.names)) if number not in taken]
        if not self.order:
            raise SanbuError(f"data.path: {config.path!r} has {len(self.names)} pieces, and none is left for training")
        self.segments, self.held_segments = (self.segments_of(each) for each in (self.order, self.held))
        self.rows, self.held_out_rows = len(self.segments), len(self.held_segments)

    @cached_property
    def codec(self) -> PerformanceCodec:
        """The codec of these rows."""
        return PerformanceCodec(self.mel)

    def segments_of(self, numbers: list[int]) -> list[tuple[int, int]]:
        """(piece, first frame) of the segments of some pieces, one after another."""
        return [(number, first) for number in numbers for first in range(0, self.frames(number), self.config.segment)]

    def frames(self, piece: int) -> int:
        """The frames of a piece."""
        return int(self.starts[piece + 1] - self.starts[piece])

    def describe(self) -> str:
        seconds = self.starts[-1] * self.mel.hop / self.mel.rate
        return (
            f"{len(self.names):,} pieces, {seconds / 60:,.1f} minutes: {len(self.order):,} for training,"
            f" {len(self.held):,} held out"
        )

    def wave(self, piece: int) -> np.ndarray:
        """The sound of a piece, float32 [N]."""
        return synthesise(self.scores[piece], self.mel.rate)

    def mel_of(self, piece: int) -> np.ndarray:
        """The log-mel of a piece [T, mels]."""
        return np.array(self.mels[self.starts[piece] : self.starts[piece + 1]])

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions of the endless training order; each segment is shifted at random inside its piece."""
        places = shuffled(np.arange(start, start + size), self.rows, seed=0)
        shifts = Noise("performance", first_row=start).integers(self.config.segment, size).tolist()
        chosen = [self.segments[place] for place in places]
        return self.together([self.shifted(each, shift) for each, shift in zip(chosen, shifts, strict=True)])

    def shifted(self, segment: tuple[int, int], shift: int) -> tuple[int, int]:
        """A segment that begins later, as far as its piece allows."""
        piece, first = segment
        last = max(0, self.frames(piece) - self.config.segment)
        return piece, min(first + shift, last)

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out segments, in order."""
        return self.together(self.held_segments[start : start + size])

    def together(self, chosen: list[tuple[int, int]]) -> Batch:
        """Segments as a batch."""
        longest = self.config.segment
        rolls, mels = (torch.zeros(len(chosen), longest, width) for width in (WIDTH, self.mel.mels))
        frames = [min(longest, self.frames(piece) - first) for piece, first in chosen]
        for row, (piece, first) in enumerate(chosen):
            count = frames[row]
            begin = self.starts[piece] + first
            rolls[row, :count] = torch.from_numpy(roll(self.scores[piece], self.mel, first, count))
            mels[row, :count] = torch.from_numpy(np.array(self.mels[begin : begin + count]))
        return {"roll": rolls, "mel": mels.transpose(1, 2).contiguous(), "frames": torch.tensor(frames)}


def known(score: Score | None) -> Score:
    """The score of a piece of the data, which has notes."""
    assert score is not None, "every piece of a source has a note"
    return score


def store(scores: list[Score], mel: Mel, folder: Path) -> None:
    """Play all scores into mels.npy [frames, mels] and frames.json."""
    mels = []
    with progress_rows("playing", len(scores)) as progress:
        for score in scores:
            wave = torch.from_numpy(synthesise(score, mel.rate))
            mels.append(log_mel(wave[None], mel)[0].T.numpy())
            progress(1)
    np.save(folder / "mels.npy", np.concatenate(mels))
    write_json(folder / "frames.json", [len(each) for each in mels])

"""The codec of speech synthesis: a text and a voice in; sound out, with a picture of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.audio import is_sound
from sanbu.codecs.codec import Written
from sanbu.codecs.speech.cutting import parts_of
from sanbu.codecs.speech.espeak import Espeak
from sanbu.codecs.speech.languages import ENGLISH, written_letters
from sanbu.codecs.speech.sound_picture import draw_sound
from sanbu.codecs.speech.symbols import SYMBOLS, ids_of
from sanbu.codecs.waves import WaveCodec
from sanbu.config import SanbuError, nearest
from sanbu.files import read_json, write_json
from sanbu.layers.spectrogram import Mel
from sanbu.space import Batch, Draft

FILE = "speech.json"  # in a run folder: the ids of the symbols that the run has seen
EXAMPLE = "Three steps make a model."  # spoken where no prompt is given


class SpeechCodec:
    """units: "phonemes" or "letters" of a language. voices: their names. known: ids of symbols seen in training."""

    medium, unit = "sound", "frames"

    def __init__(
        self, mel: Mel, units: str, voices: Sequence[str], known: Iterable[int], language: str = ENGLISH
    ) -> None:
        self.mel, self.waves = mel, WaveCodec(mel)
        self.units, self.language = units, language
        self.voices, self.known = tuple(voices), frozenset(known)

    @classmethod
    def load(cls, folder: Path, mel: Mel, units: str, voices: Sequence[str], language: str = ENGLISH) -> SpeechCodec:
        """The codec that was saved in a run folder."""
        return cls(mel, units, voices, read_json(folder / FILE)["known"], language)

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, {"known": sorted(self.known)})

    @cached_property
    def espeak(self) -> Espeak:
        """The process that turns texts into phonemes, started when it is first needed."""
        return Espeak(self.language)

    def request(self, prompt: str | None, label: str | None) -> dict[str, str | None]:
        return {"text": prompt, "voice": label}

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """ids [B, P, S]: the symbols of P sentences, zeros where a row has fewer or shorter ones; voice [B].

        prompt: a text, {"text": ..., "voice": name or number}, None, or a list of these. Without a voice the row of
        seed s has voice s modulo their number. Raises SanbuError for a text that cannot be spoken.
        """
        prompts = prompt if isinstance(prompt, (list, tuple)) else [prompt]
        asked = [each if isinstance(each, dict) else {"text": each} for each in prompts]
        texts = [self.sentences(each.get("text") or EXAMPLE) for each in asked]
        rows_of = [text for text in texts for _ in range(rows)]
        voices = [each.get("voice") for each in asked for _ in range(rows)]
        longest = max(len(sentence) for text in texts for sentence in text)
        ids = torch.zeros(len(rows_of), max(map(len, texts)), longest, dtype=torch.long)
        for row, text in enumerate(rows_of):
            for part, sentence in enumerate(text):
                ids[row, part, : len(sentence)] = torch.tensor(sentence)
        numbers = [self.voice_number(voice, seed + row) for row, voice in enumerate(voices)]
        return {"ids": ids, "voice": torch.tensor(numbers)}

    def sentences(self, text: str) -> list[list[int]]:
        """The ids of the symbols of each sentence. Symbols that the run never saw are left out."""
        parts = parts_of(text, language=self.language)
        if self.units == "phonemes":
            parts = [f"[[{self.espeak.phonemes(part)}]]" for part in parts]
        else:
            parts = [written_letters(part, self.language) for part in parts]
        found = [[symbol for symbol in ids_of(part) if symbol in self.known] for part in parts]
        kept = [ids for ids in found if any(SYMBOLS[symbol][-1].isalpha() for symbol in ids)]
        if not kept:
            raise SanbuError(f"prompt: given {text[:40]!r}, of whose symbols this run knows none")
        return kept

    def voice_number(self, voice: str | int | None, seed: int) -> int:
        """The number of a voice, given by name or number."""
        if voice is None or voice == "":
            return seed % len(self.voices)
        if voice in self.voices:
            return self.voices.index(str(voice))
        if str(voice).isdecimal() and int(voice) < len(self.voices):
            return int(voice)
        known = ", ".join(self.voices)
        raise SanbuError(f"voice: given {str(voice)[:40]!r}, allowed: {known}{nearest(str(voice), self.voices)}")

    def follow(self, stop: Sequence[str] = ()) -> SpeechFollower:
        """A follower that gives out the samples that are final."""
        return SpeechFollower()

    def vocabulary(self) -> None:
        """None: the symbols are the same in every run."""

    def read(self, sample: Tensor) -> np.ndarray:
        """A wave as float32 [N]."""
        return self.waves.read(sample)

    def show(self, sample: np.ndarray) -> str:
        return self.waves.show(sample)

    def render(self, samples: Sequence[np.ndarray], path: Path) -> Path:
        """Write all samples into one WAV file, and a picture of the first."""
        draw_sound(samples[0], self.mel, path.with_name(path.name + ".png"))
        return self.waves.render(samples, path)

    def amount(self, batch: Batch) -> int:
        return int(batch["frames"].sum())

    def export(self, samples: Sequence[np.ndarray], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write sound as `WaveCodec` does; beside a single file, a picture of the wave, its mel and its pitch."""
        written = self.waves.export(samples, folder, frames)
        if is_sound(folder):
            picture = folder.with_suffix(".png")
            draw_sound(samples[0], self.mel, picture)
            written["picture"] = str(picture)
        return written


class SpeechFollower:
    """Collects the samples that each draft adds to each row; rows end when the strategy ends them."""

    def __init__(self) -> None:
        self.parts: list[list[np.ndarray]] = []
        self.pieces: Sequence[np.ndarray] = ()

    def update(self, draft: Draft) -> Tensor:
        """Keep what is new."""
        rows = len(draft.done)
        self.parts = self.parts or [[] for _ in range(rows)]
        known = [sum(map(len, parts)) for parts in self.parts]
        ends = draft.record["samples"].tolist()
        self.pieces = [
            draft.sample[row, start:end].detach().float().cpu().numpy().copy()
            for row, (start, end) in enumerate(zip(known, ends, strict=True))
        ]
        for parts, piece in zip(self.parts, self.pieces, strict=True):
            parts.append(piece)
        return draft.done

    def results(self) -> list[np.ndarray]:
        """The wave of each row, of its own length."""
        return [np.concatenate(parts) if parts else np.zeros(0, np.float32) for parts in self.parts]

"""Utterances for acoustic models and recognisers: symbols of a text, the log-mel of its sound, pitch and durations.

A row is an utterance, filled up to the longest of its batch. Its voice, or a hash of its name, decides whether it is
held out.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.audio import at_peak, read_wave
from sanbu.codecs.codec import Codec
from sanbu.codecs.speech.espeak import Espeak, check_language
from sanbu.codecs.speech.languages import ENGLISH, is_english, spoken_text, written_letters
from sanbu.codecs.speech.speech_codec import SpeechCodec
from sanbu.codecs.speech.symbols import SYMBOLS, ids_of
from sanbu.codecs.speech.transcripts import TranscriptCodec
from sanbu.config import Auto, SanbuError, added, nearest
from sanbu.data.builtin import spoken
from sanbu.data.cache import cache_folder
from sanbu.data.chance import chance_of_name
from sanbu.data.data import Data, DataConfig
from sanbu.data.order import shuffled
from sanbu.data.sources import built_in
from sanbu.data.speech_files import Utterance, utterances, voices_of
from sanbu.files import read_json, write_json
from sanbu.layers.pitch import MIDDLE, pitch
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.progress import progress_rows
from sanbu.space import Batch, Space

RULES = 1  # the version of how an utterance becomes a row
LONGEST_TEXT = 300  # symbols of a row, for counting memory


class SpeechConfig(DataConfig):
    """Sound with its text."""

    path: str = Field(
        "spoken", description="spoken (espeak-ng's voices), LJSpeech folder, folder of x.wav with x.txt, or .parquet"
    )
    mel: Mel = Field(Mel(), description="how a wave becomes a mel; kept in the run")
    units: Literal["auto", "phonemes", "letters"] = Field(
        "auto", description="what a text becomes; phonemes need the extra `speech`; auto: phonemes for spoken"
    )
    language: str = added(ENGLISH, description="language of the texts, a name of espeak-ng: en-us, de, fr, pt-br ...")
    voices: Annotated[tuple[str, ...], Field(min_length=1)] | Auto = Field(
        "auto", description="names of the voices; auto: those of the data"
    )
    sentences: int = Field(1200, ge=1, description="sentences [spoken]")
    skip: int = Field(0, ge=0, description="sentences left out before the first [spoken]")
    longest: float = Field(12.0, gt=0, description="seconds; longer utterances are left out")
    validation: float = Field(0.05, ge=0, lt=1, description="fraction of utterances held out")
    held_out: tuple[str, ...] = Field((), description="voices that are held out whole, in place of the fraction")

    @property
    def names(self) -> tuple[str, ...]:
        """The voices, of the data where they are auto."""
        return voices_of(self.path) if self.voices == "auto" else self.voices

    @property
    def symbols(self) -> Literal["phonemes", "letters"]:
        """The units, of the source where they are auto."""
        if self.units == "auto":
            return "phonemes" if built_in(self.path, spoken.NAME) else "letters"
        return self.units

    def space(self) -> Space:
        return Space((self.mel.mels,), len(SYMBOLS), classes=len(self.names), unlabelled=False, mel=self.mel)

    def resolve(self) -> SpeechConfig:
        return self.model_copy(update={"voices": self.names, "units": self.symbols})

    def example(self, rows: int) -> Batch:
        frames = self.mel.frames(int(self.longest * self.mel.rate))
        whole = lambda *shape: torch.zeros(shape, dtype=torch.long)  # noqa: E731
        batch = {"ids": whole(rows, LONGEST_TEXT), "symbols": whole(rows) + LONGEST_TEXT, "voice": whole(rows)}
        batch |= {"mel": torch.zeros(rows, self.mel.mels, frames), "frames": whole(rows) + frames}
        shares = whole(rows, LONGEST_TEXT)
        shares[:, 0] = frames
        return batch | {"pitch": torch.zeros(rows, frames), "durations": shares}

    def build(self) -> Data:
        return SpeechRows(self)

    def known_codec(self, known: list[int]) -> Codec:
        """The codec of rows in which these symbols occur."""
        raise NotImplementedError


class Speech(SpeechConfig):
    """Sound with its text, to speak."""

    measure: ClassVar[str] = "speech"
    kind: Literal["speech"] = "speech"

    def known_codec(self, known: list[int]) -> Codec:
        return SpeechCodec(self.mel, self.symbols, self.names, known, self.language)

    def codec(self, folder: Path) -> Codec:
        return SpeechCodec.load(folder, self.mel, self.symbols, self.names, self.language)


class Transcripts(SpeechConfig):
    """Sound with its text, to be recognised; the text is letters."""

    measure: ClassVar[str] = "transcripts"
    kind: Literal["transcripts"] = "transcripts"
    units: Literal["letters"] = "letters"

    def known_codec(self, known: list[int]) -> Codec:
        return TranscriptCodec(self.mel)

    def codec(self, folder: Path) -> Codec:
        return TranscriptCodec(self.mel)


class SpeechRows:
    """Rows of B utterances with at most S symbols and T frames:

    ids [B, S] and symbols [B], their number; mel [B, mels, T] and frames [B]; pitch [B, T] in octaves from 200 Hz,
    interpolated where unvoiced; voice [B]; durations [B, S] in frames, whose sum is `frames`, if the corpus knows them.
    """

    def __init__(self, config: SpeechConfig) -> None:
        self.config, self.mel, self.voices = config, config.mel, config.names
        check_spoken(config.path, config.language)
        found = utterances(config.path, config.sentences, config.skip, self.voices)
        for voice in config.held_out:
            if voice not in self.voices:
                known = f"allowed: {', '.join(self.voices)}{nearest(voice, self.voices)}"
                raise SanbuError(f"data.held_out: given {voice!r}, {known}")
        self.utterances = {each.name: each for each in found}
        self.fingerprint = fingerprint(config, found)
        folder = cache_folder(self.fingerprint, lambda place: store(config, found, place))
        self.about: list[dict[str, Any]] = read_json(folder / "rows.json")
        self.mels = np.load(folder / "mels.npy", mmap_mode="r")
        self.pitches = np.load(folder / "pitches.npy", mmap_mode="r")
        self.starts = np.cumsum([0, *(row["frames"] for row in self.about)])
        for row in self.about:
            if row["voice"] not in self.voices:
                known = f"allowed (data.voices): {', '.join(self.voices)}"
                raise SanbuError(
                    f"{row['name']} is of the voice {row['voice']!r}, {known}{nearest(row['voice'], self.voices)}"
                )
        self.held = [number for number, row in enumerate(self.about) if self.is_held_out(row)]
        taken = set(self.held)
        self.order = [number for number in range(len(self.about)) if number not in taken]
        if not self.order:
            raise SanbuError(f"data.path: {config.path!r} has {len(self.about)} utterances, none left for training")
        self.rows, self.held_out_rows = len(self.order), len(self.held)
        self.timed = all("ends" in row for row in self.about)

    def is_held_out(self, row: dict[str, Any]) -> bool:
        """Whether an utterance is kept from training: by its voice, or by the hash of its name."""
        if self.config.held_out:
            return row["voice"] in self.config.held_out
        return chance_of_name(row["name"]) < self.config.validation

    @cached_property
    def codec(self) -> Codec:
        """The codec of these rows: it knows the symbols that occur in them."""
        known = sorted({number for row in self.about for number in row["ids"]})
        return self.config.known_codec(known)

    def describe(self) -> str:
        seconds = self.starts[-1] * self.mel.hop / self.mel.rate
        times = "with phoneme times" if self.timed else "without phoneme times"
        return (
            f"{len(self.about):,} utterances of {len(self.voices)} voices, {seconds / 60:,.1f} minutes, {times}:"
            f" {self.rows:,} for training, {self.held_out_rows:,} held out"
        )

    def batch(self, start: int, size: int) -> Batch:
        """Utterances at positions of the endless training order."""
        places = shuffled(np.arange(start, start + size), self.rows, seed=0)
        return self.together([self.order[place] for place in places])

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out utterances, in order."""
        return self.together(self.held[start : start + size])

    def text(self, row: int) -> str:
        """The text of an utterance as it is spoken."""
        return str(self.about[row]["text"])

    def letters(self, row: int) -> str:
        """The text of an utterance as a recogniser writes it: with a to z."""
        return written_letters(self.text(row), self.config.language)

    def wave(self, row: int) -> np.ndarray:
        """The sound of an utterance, as it was read."""
        utterance = self.utterances[self.about[row]["name"]]
        return at_peak(read_wave(utterance.sound, self.mel.rate, utterance.name))

    def hertz(self, row: int) -> np.ndarray:
        """The pitch of each frame of an utterance, Hz; NaN where unvoiced."""
        frames = self.about[row]["frames"]
        return pitch(self.wave(row), self.mel.rate, self.mel.hop, frames)

    def mel_of(self, row: int) -> np.ndarray:
        """The log-mel of an utterance [T, mels]."""
        return np.array(self.mels[self.starts[row] : self.starts[row + 1]])

    def together(self, rows: list[int]) -> Batch:
        """Utterances as a batch, filled up to the longest."""
        abouts = [self.about[row] for row in rows]
        frames = [about["frames"] for about in abouts]
        cuts = [slice(self.starts[row], self.starts[row + 1]) for row in rows]
        mels = [torch.from_numpy(self.mel_of(row)) for row in rows]
        pitches = [torch.from_numpy(np.array(self.pitches[cut])) for cut in cuts]
        ids = [torch.tensor(about["ids"]) for about in abouts]
        batch = {
            "ids": filled(ids),
            "symbols": torch.tensor([len(each) for each in ids]),
            "mel": filled(mels).transpose(1, 2).contiguous(),
            "frames": torch.tensor(frames),
            "pitch": filled(pitches),
            "voice": torch.tensor([self.voices.index(about["voice"]) for about in abouts]),
        }
        if self.timed:
            batch["durations"] = filled([torch.tensor(frame_counts(about)) for about in abouts])
        return batch


def filled(rows: list[Tensor]) -> Tensor:
    """Rows as one tensor, with zeros after the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def frame_counts(about: dict[str, Any]) -> list[int]:
    """The frames of each symbol of a row; their sum is the number of frames."""
    frames, ends = about["frames"], np.array(about["ends"])
    edges = np.minimum(np.round(ends / ends[-1] * frames), frames).astype(int)
    return np.diff(edges, prepend=0).tolist()


def fingerprint(config: SpeechConfig, found: tuple[Utterance, ...]) -> str:
    """The name of the cache folder: a hash of the sounds, the texts and everything that decides the rows."""
    made_with = [RULES, config.mel.model_dump(), config.symbols, config.language, config.longest]
    digest = hashlib.sha256(json.dumps(made_with).encode())
    for each in found:
        content = each.sound if isinstance(each.sound, bytes) else each.sound.read_bytes()
        digest.update(hashlib.sha256(content).digest())
        digest.update(json.dumps([each.name, each.text, each.voice]).encode())
    return f"speech-{digest.hexdigest()[:24]}"


def store(config: SpeechConfig, found: tuple[Utterance, ...], folder: Path) -> None:
    """Read every utterance into mels.npy [frames, mels], pitches.npy [frames] and rows.json."""
    rows, mels, pitches = [], [], []
    espeak = Espeak(config.language) if config.symbols == "phonemes" and not all(each.ends for each in found) else None
    with progress_rows("reading speech", len(found)) as progress:
        for each in found:
            text = spoken_text(each.text, config.language)
            symbols = each.symbols if config.symbols == "phonemes" else written_letters(text, config.language)
            if espeak is not None and text:
                symbols = espeak.phonemes(text)
            progress(1)
            ids = ids_of(written(symbols, config.symbols))
            row = {"name": each.name, "text": text, "voice": each.voice, "ids": ids}
            wave = read_wave(each.sound, config.mel.rate, each.name)
            if not row["ids"] or len(wave) > config.longest * config.mel.rate:
                continue
            mel, octaves = features(wave, config.mel)
            if len(mel) < len(row["ids"]):
                continue  # too short to hold its text
            if config.symbols == "phonemes" and each.ends:
                row["ends"] = list(each.ends)
            rows.append(row | {"frames": len(mel)})
            mels.append(mel)
            pitches.append(octaves)
    if espeak is not None:
        espeak.close()
    if not rows:
        script = config.symbols == "letters" and any(in_another_script(each.text, config.language) for each in found)
        hint = "; a text in another script than Latin needs data.units=phonemes" if script else ""
        raise SanbuError(f"data.path: {config.path!r} has no utterance that can be used; see: sanbu data check{hint}")
    np.save(folder / "mels.npy", np.concatenate(mels))
    np.save(folder / "pitches.npy", np.concatenate(pitches))
    write_json(folder / "rows.json", rows)


def check_spoken(path: str, language: str) -> None:
    """Raise SanbuError for a language that is unknown, or another one than that of the built-in sentences."""
    check_language(language)
    if built_in(path, spoken.NAME) and not is_english(language):
        raise SanbuError(f"data.language: given {language!r}, but {spoken.NAME} is English; give data.path with texts")


def in_another_script(text: str, language: str) -> bool:
    """Whether a text has letters, but none that can be written with a to z."""
    said = spoken_text(text, language)
    return bool(said) and not written_letters(said, language)


def written(symbols: str, units: str) -> str:
    """Symbols as a normalised text has them: phonemes stand in [[...]]."""
    return f"[[{symbols}]]" if units == "phonemes" else symbols


def features(wave: np.ndarray, mel: Mel) -> tuple[np.ndarray, np.ndarray]:
    """The log-mel [T, mels] of a wave whose peak becomes 0.95, and its pitch [T] in octaves from 200 Hz."""
    wave = at_peak(wave)
    found = log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None], mel)[0].T
    hertz = pitch(wave, mel.rate, mel.hop, len(found))
    return found.numpy(), filled_up(np.log2(hertz / MIDDLE))


def filled_up(octaves: np.ndarray) -> np.ndarray:
    """Pitches with the unvoiced frames (NaN) interpolated between voiced ones; zeros if there are none."""
    voiced = np.flatnonzero(np.isfinite(octaves))
    if not len(voiced):
        return np.zeros_like(octaves)
    return np.interp(np.arange(len(octaves)), voiced, octaves[voiced]).astype(np.float32)

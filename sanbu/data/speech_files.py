"""Corpora of speech: the built-in sentences, LJSpeech's layout, folders of sound and text, Parquet.

spoken       espeak-ng's voices, with the exact times of phonemes
LJSpeech     metadata.csv with lines id|text|normalised text, and wavs/id.wav
a folder     x.wav (or .flac, .mp3 ...) beside x.txt; the folder of a file is its voice
.parquet     columns `audio` (encoded), a text, and perhaps a voice; a folder of such files is read whole
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbu.codecs.audio import READABLE
from sanbu.config import SanbuError
from sanbu.data.builtin import spoken
from sanbu.data.reading import arrow_table, decode_text, parquet_below, read_file
from sanbu.data.sources import built_in
from sanbu.files import nearest_file, read_json

TEXTS = (
    "text",
    "normalized_text",
    "transcription",
    "transcript",
    "sentence",
    "label",
)  # columns, the first that is there
VOICES = ("voice", "speaker", "speaker_id")
ONE_VOICE = "default"  # the name where a corpus names none


@dataclass(frozen=True)
class Utterance:
    """A sound with its text. symbols, ends: phonemes and the sample where each ends, where they are known."""

    name: str
    sound: Path | bytes
    text: str
    voice: str = ONE_VOICE
    symbols: str = ""
    ends: tuple[int, ...] = ()


def utterances(path: str, sentences: int, skip: int, voices: tuple[str, ...]) -> tuple[Utterance, ...]:
    """The utterances of a source, in order. sentences, skip, voices: of the built-in corpus. Raises SanbuError."""
    if built_in(path, spoken.NAME):
        return tuple(spoken_ones(sentences, skip, voices))
    place = Path(path)
    if not place.exists():
        allowed = "give spoken, a folder of sound and text, or .parquet"
        raise SanbuError(f"data.path: {path!r} does not exist; {allowed}{nearest_file(path, [spoken.NAME])}")
    if tables := tables_of(place):
        base = place if place.is_dir() else place.parent
        found = [each for file in tables for each in records(file, str(file.relative_to(base)))]
    elif (place / "metadata.csv").exists():
        found = listed(place)
    else:
        found = paired(place)
    if not found:
        raise SanbuError(f"data.path: {path!r} has no sound with a text; put x.txt beside x.wav, or see docs/speech.md")
    return tuple(found)


def spoken_ones(sentences: int, skip: int, voices: Sequence[str]) -> list[Utterance]:
    """Sentences of the built-in corpus; voices take turns."""
    texts = spoken.sentences_of(skip + sentences)[skip:]
    folder = spoken.spoken_folder(spoken.turns(texts, tuple(voices)))
    found = []
    for number, about in enumerate(read_json(folder / spoken.TIMES)):
        name = f"{number:05d}"
        symbols, ends = about["symbols"], tuple(about["ends"])
        found.append(Utterance(name, folder / f"{name}.wav", about["text"], about["voice"], symbols, ends))
    return found


def listed(folder: Path) -> list[Utterance]:
    """LJSpeech's layout; quotes are plain characters, and the last column is the text."""
    file = folder / "metadata.csv"
    found = []
    for number, line in enumerate(decode_text(file, read_file(file)).splitlines(), 1):
        if not line.strip():
            continue
        name, *texts = line.split("|")
        if not texts:
            raise SanbuError(f"{file}, line {number}: given {line[:40]!r}, allowed: id|text or id|text|normalised text")
        sound = folder / "wavs" / f"{name}.wav"
        if not sound.exists():
            raise SanbuError(f"{file}, line {number}: {sound} does not exist")
        found.append(Utterance(name, sound, texts[-1]))
    return found


def paired(folder: Path) -> list[Utterance]:
    """Sound files with a text file of the same name beside them."""
    found = []
    for sound, text, voice in pairs(folder):
        name = str(sound.relative_to(folder).with_suffix(""))
        found.append(Utterance(name, sound, decode_text(text, read_file(text)).strip(), voice))
    return found


def pairs(folder: Path) -> list[tuple[Path, Path, str]]:
    """Each sound file with its text file and its voice."""
    sounds = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in READABLE]
    voice = lambda path: path.parent.name if path.parent != folder else ONE_VOICE  # noqa: E731
    named = [(path, path.with_suffix(".txt"), voice(path)) for path in sounds]
    return [each for each in named if each[1].exists()]


def tables_of(place: Path) -> list[Path]:
    """The Parquet file that a path names, or those in a folder that holds no sound files with texts."""
    if place.suffix.lower() == ".parquet" and place.is_file():
        return [place]
    if (place / "metadata.csv").exists() or pairs(place):
        return []
    return parquet_below(place)


def records(file: Path, name: str) -> list[Utterance]:
    """The records of a Parquet file, named by its name and their numbers."""
    table = arrow_table(file)
    names = table.column_names
    text = next((each for each in TEXTS if each in names), None)
    if "audio" not in names or text is None:
        raise SanbuError(
            f"{file} needs a column 'audio' and one of {', '.join(TEXTS)}; its columns: {', '.join(names)}"
        )
    voice = next((each for each in VOICES if each in names), None)
    sounds, texts = (table.column(each).to_pylist() for each in ("audio", text))
    voices: list[Any] = table.column(voice).to_pylist() if voice else [ONE_VOICE] * len(texts)
    found = []
    for number, (sound, words, who) in enumerate(zip(sounds, texts, voices, strict=True)):
        content = sound["bytes"] if isinstance(sound, dict) else sound
        found.append(Utterance(f"{name}[{number}]", content or b"", str(words), str(who)))
    return found


def voices_of(path: str) -> tuple[str, ...]:
    """The names of the voices of a source, sorted; those of the built-in corpus in its own order."""
    if built_in(path, spoken.NAME):
        return spoken.VOICES
    place = Path(path)
    if tables := tables_of(place):
        return tuple(sorted({str(name) for file in tables for name in voices_in(file)}))
    if (place / "metadata.csv").exists():
        return (ONE_VOICE,)
    return tuple(sorted({voice for _, _, voice in pairs(place)})) or (ONE_VOICE,)


def voices_in(file: Path) -> list[Any]:
    """The names of the voices of a Parquet file."""
    table = arrow_table(file)
    column = next((name for name in VOICES if name in table.column_names), None)
    return table.column(column).unique().to_pylist() if column else [ONE_VOICE]

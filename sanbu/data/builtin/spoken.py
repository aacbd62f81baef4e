"""The built-in sound: sentences of the installed Python's documentation, spoken by espeak-ng in several voices."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from sanbu.codecs.speech.espeak import Espeak
from sanbu.config import SanbuError
from sanbu.data.builtin.stdlib_docs import documentation
from sanbu.data.cache import cache_folder
from sanbu.files import write_json
from sanbu.progress import progress_rows

NAME = "spoken"
VOICES = ("en-us", "en-us+f3", "en-us+m3", "en-us+f2", "en-us+m7", "en-us+m1")
SENTENCES = 480
SENTENCE = re.compile(r"(?<![\w.`(])[A-Z][a-z]+(?:,? [a-z]+){6,16}\.(?=\s)")
TIMES = "times.json"  # for each file of a folder: voice, text, symbols, and the sample where each symbol ends
RULES = 4  # the version of how lines become files


def spoken(sentences: int = SENTENCES) -> list[Path]:
    """The WAV files of so many sentences, spoken the first time and then kept. Raises SanbuError if espeak is missing.

    Voices take turns.
    """
    texts = sentences_of(sentences)
    return sorted(spoken_folder(turns(texts, VOICES)).glob("*.wav"))


def turns(texts: list[str], voices: tuple[str, ...]) -> list[list[str]]:
    """Lines of a voice and a text; voices take turns."""
    return [[voices[number % len(voices)], text] for number, text in enumerate(texts)]


def spoken_folder(lines: list[list[str]]) -> Path:
    """The folder with a WAV file per line and their times, made the first time and then kept."""
    digest = hashlib.sha256(json.dumps([RULES, lines]).encode()).hexdigest()[:24]
    return cache_folder(f"spoken-{digest}", lambda folder: speak(lines, folder))


def sentences_of(count: int) -> list[str]:
    """The first so many different plain sentences of the documentation."""
    found: dict[str, None] = {}
    for text in documentation():
        for sentence in SENTENCE.findall(re.sub(r"\s+", " ", text) + " "):
            found[sentence] = None
            if len(found) == count:
                return list(found)
    return list(found)


def speak(lines: list[list[str]], folder: Path) -> None:
    """Speak lines of voice and text into a folder: 00000.wav and so on, and their times. Raises SanbuError."""
    times = []
    try:
        with Espeak() as espeak, progress_rows("speaking", len(lines)) as progress:
            for number, (voice, text) in enumerate(lines):
                said = espeak.say(text, voice, folder / f"{number:05d}.wav")
                times.append({"voice": voice, "text": text, "symbols": said.symbols, "ends": said.ends})
                progress(1)
    except SanbuError as error:
        raise SanbuError(f"data.path: {error}; or give a folder of sound files") from None
    write_json(folder / TIMES, times)

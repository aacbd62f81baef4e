"""The built-in sound: sentences of the installed Python's documentation, spoken by espeak-ng in several voices."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

from sanbu.config import SanbuError
from sanbu.data.builtin import espeak_program
from sanbu.data.builtin.stdlib_docs import documentation
from sanbu.data.cache import cache_folder

NAME = "spoken"
VOICES = ("en-us", "en-us+f3", "en-us+m3", "en-us+f2", "en-us+m7", "en-us+m1")
SENTENCES = 480
SENTENCE = re.compile(r"(?<![\w.`(])[A-Z][a-z]+(?:,? [a-z]+){6,16}\.(?=\s)")


def spoken(sentences: int = SENTENCES) -> list[Path]:
    """The WAV files of so many sentences, spoken the first time and then kept. Raises SanbuError if espeak is missing.

    Voices take turns.
    """
    texts = sentences_of(sentences)
    lines = [[VOICES[number % len(VOICES)], text] for number, text in enumerate(texts)]
    digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:24]
    return sorted(cache_folder(f"spoken-{digest}", lambda folder: speak(lines, folder)).glob("*.wav"))


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
    """Speak lines of voice and text into a folder, by a separate process. Raises SanbuError in one line."""
    request = json.dumps({"folder": str(folder), "lines": lines})
    program = [sys.executable, espeak_program.__file__]
    done = subprocess.run(program, input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"the speaking program ended with {done.returncode}"]
        raise SanbuError(f"data.path: {said[-1]}; or give a folder of sound files")

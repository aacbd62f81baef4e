"""espeak-ng as a separate process: sentences spoken into files, and the phonemes of a text with their times."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from sanbu.codecs.speech import espeak_program
from sanbu.codecs.speech.languages import ENGLISH
from sanbu.codecs.speech.symbols import INLINE, MARKS, PHONEMES
from sanbu.config import SanbuError, nearest

ENDING = ",.:;?!"  # marks that end a clause
EDGES = ENDING + " -"  # what espeak drops at the ends of a text
READ_AHEAD = 4  # characters
SWITCH = re.compile(r"\([a-z-]+\)")  # how espeak-ng marks a word of another language: (en)dˈaʊnləʊd(de)


@dataclass(frozen=True)
class Spoken:
    """symbols: phonemes (IPA), spaces and marks, one character each. ends: the sample where each ends. samples: of all.

    The first symbol begins at 0, and the last one ends with the sound.
    """

    symbols: str
    ends: list[int]
    samples: int


def check_language(language: str) -> None:
    """Raise SanbuError for a language that espeak-ng does not know, where it is installed."""
    found = find_spec("espeakng_loader")
    place = Path(found.origin).parent / "espeak-ng-data" / "lang" if found and found.origin else None
    known = sorted(file.name.lower() for file in place.glob("*/*")) if place else []
    if known and language not in known:
        near = nearest(language.lower(), known) if len(language) > 3 else ""
        some = "names of espeak-ng, such as en-us, de, fr, pt-br"
        raise SanbuError(f"data.language: given {language!r}, allowed: {some}{near}")


class Espeak:
    """A running espeak-ng. Close it, or use it in a `with`; several threads may share it.

    language: the one that `phonemes` reads. If the process ends, the request that it was given fails, and the next one
    starts another process.
    """

    def __init__(self, language: str = ENGLISH) -> None:
        self.language = language
        self.process = start()
        self.turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with self.turn:
            self.process.communicate()

    def say(self, text: str, voice: str, file: Path) -> Spoken:
        """Speak a text into a .wav file. Raises SanbuError, in one line, for a voice that is not there."""
        answer = self.ask({"voice": voice, "text": text, "file": str(file)})
        return spoken_of(text, answer["events"], answer["samples"])

    def phonemes(self, text: str) -> str:
        """A normalised text as symbols: phonemes, spaces and marks. What stands in [[...]] is kept as it is."""
        return "".join(
            part if number % 2 else self.symbols(part) for number, part in enumerate(INLINE.split(text))
        ).strip()

    def symbols(self, text: str) -> str:
        """The symbols of a text without inline phonemes, with its spaces and marks at the ends."""
        if not any(symbol.isalnum() for symbol in text):
            return text
        body = text.strip(EDGES)
        before, _, after = text.partition(body)
        clauses = self.ask({"voice": self.language, "text": body})["clauses"]
        parts = [phonemes + mark_at(body, place) for phonemes, place in clauses[:-1]]
        return before + SWITCH.sub("", " ".join([*parts, clauses[-1][0]])) + after

    def ask(self, request: dict[str, str]) -> dict[str, Any]:
        """The answer to a request. Raises SanbuError, in one line."""
        with self.turn:
            answer = self.exchange(json.dumps(request))
        if "error" in answer:
            raise SanbuError(answer["error"])
        return answer

    def exchange(self, line: str) -> dict[str, Any]:
        """Write a line and read one."""
        if self.process.poll() is not None:
            self.process.communicate()
            self.process = start()
        try:
            assert self.process.stdin is not None and self.process.stdout is not None
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):
            answer = ""
        if not answer:
            code = self.process.wait()
            said = (self.process.stderr.read() if self.process.stderr else "").strip().splitlines()
            raise SanbuError(said[-1] if said else f"the speaking program ended with exit code {code}")
        return json.loads(answer)


def start() -> subprocess.Popen[str]:
    """The program, waiting for its first line."""
    program = [sys.executable, espeak_program.__file__]
    pipe = subprocess.PIPE
    return subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")


def spoken_of(text: str, events: list[tuple[str, int, Any]], samples: int) -> Spoken:
    """Symbols and their ends from the events of the program. A phoneme of several symbols is shared out evenly.

    The pause at the end of a clause belongs to its mark in the text. A gap between a word and its first phoneme belongs
    to the space before the word; another pause, to the symbol before it.
    """
    begun: list[tuple[str, int]] = []  # symbols, and the sample where each begins
    pause: int | None = None  # where the pause began that we are in
    for kind, sample, what in events:
        if kind == "word" and begun:
            begun.append((" ", sample))
        elif kind == "phoneme" and what:
            begun.append((what, sample))
            pause = None
        elif kind == "phoneme":
            pause = sample if pause is None else pause
        elif kind == "end" and begun:
            begun.append((mark_at(text, what), sample if pause is None else pause))
            pause = None
    edges = [max(0, min(sample, samples)) for _, sample in begun[1:]] + [samples]
    symbols: list[str] = []
    ends: list[int] = []
    start = 0
    for (name, _), edge in zip(begun, edges, strict=bool(begun)):
        kept = [symbol for symbol in name if symbol in PHONEMES or symbol in MARKS]
        end = max(start, edge)
        for place, symbol in enumerate(kept, 1):
            symbols.append(symbol)
            ends.append(start + (end - start) * place // len(kept))
        start = end if kept else start
    return Spoken("".join(symbols), [*ends[:-1], samples] if ends else [], samples)


def mark_at(text: str, place: int) -> str:
    """The mark that ends the clause before a place in a text; a comma where there is none, as in a long clause.

    espeak-ng reads a few characters beyond the mark before it gives the place.
    """
    last = place >= len(text)
    before = text.rstrip()[-1:] if last else text[max(0, place - READ_AHEAD) : place]
    near = [symbol for symbol in before if symbol in ENDING]
    return near[-1] if near else ("." if last else ",")

"""A program of its own that speaks with espeak-ng: it reads a request per line and answers each with a line of JSON.

It imports nothing of Sanbu and is run as a separate process, because espeak-ng is licensed under GPL-3.0-or-later.

request  {"voice": name, "text": words, "file": path of the .wav to write}
answer   {"samples": n, "rate": Hz, "events": [[kind, sample, what], ...]}, or {"error": reason}
request  {"voice": name, "text": words}
answer   {"clauses": [[IPA, place in the text where the clause ends], ...]}, without speaking

An event is ["phoneme", sample, IPA], ["word", sample, ""] or ["end", sample, place in the text where the clause ends].
A fresh process that speaks the same lines in the same order makes the same samples.
"""

import ctypes
import json
import sys
import wave
from typing import Any

RETRIEVE, UTF8 = 1, 1  # espeak_AUDIO_OUTPUT, espeakCHARS
IPA, PHONEMES_AS_IPA = 2, 3  # of espeak_TextToPhonemes, and espeakINITIALIZE_PHONEME_EVENTS with _IPA
SEED = 1  # of the noise of breathy voices
WORD, END, PHONEME = 1, 5, 7  # espeak_EVENT_TYPE


class Name(ctypes.Union):
    """`id` of espeak_EVENT."""

    _fields_ = (("number", ctypes.c_int), ("pointer", ctypes.c_char_p), ("text", ctypes.c_char * 8))


class Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("place", ctypes.c_int), ("length", ctypes.c_int),
        ("audio", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p), ("name", Name),
    )  # fmt: skip


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Voice:
    """The library, with what it said of the text that is spoken."""

    def __init__(self, library: Any, data: str) -> None:
        self.library = library
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
        self.rate = library.espeak_Initialize(RETRIEVE, 0, data.encode(), PHONEMES_AS_IPA)
        self.parts: list[bytes] = []
        self.events: list[tuple[str, int, Any]] = []
        self.kept = CALLBACK(self.collect)
        library.espeak_SetSynthCallback(self.kept)

    def collect(self, samples: Any, count: int, events: Any) -> int:
        """Called by the library with each piece of sound."""
        if samples and count > 0:
            self.parts.append(ctypes.string_at(samples, 2 * count))
        number = 0
        while events[number].type:
            event = events[number]
            if event.type == PHONEME:
                name = bytes(event.name.text).split(b"\0")[0].decode(errors="ignore")
                self.events.append(("phoneme", event.sample, name))
            elif event.type == WORD:
                self.events.append(("word", event.sample, ""))
            elif event.type == END:
                self.events.append(("end", event.sample, event.place))
            number += 1
        return 0

    def answer(self, request: dict[str, str]) -> dict[str, Any]:
        """The answer to a request."""
        if self.library.espeak_SetVoiceByName(request["voice"].encode()):
            return {"error": f"espeak-ng has no voice {request['voice']!r}"}
        if "file" in request:
            return self.speak(request["text"], request["file"])
        return {"clauses": self.clauses(request["text"])}

    def clauses(self, text: str) -> list[tuple[str, int]]:
        """The phonemes of each clause."""
        content = text.encode()
        kept = ctypes.create_string_buffer(content)
        start = ctypes.addressof(kept)
        place = ctypes.c_void_p(start)
        found: list[tuple[str, int]] = []
        while place.value:
            phonemes = self.library.espeak_TextToPhonemes(ctypes.byref(place), UTF8, IPA).decode()
            read = place.value - start if place.value else len(content)
            found.append((phonemes, len(content[:read].decode(errors="ignore"))))
        return found

    def speak(self, text: str, file: str) -> dict[str, Any]:
        """Speak into a file. Breathy voices have noise, whose seed the library would take from the clock."""
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
        self.parts.clear()
        self.events.clear()
        content = text.encode()
        self.library.espeak_Synth(content, len(content) + 1, 0, 0, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        sound = b"".join(self.parts)
        with wave.open(file, "wb") as written:
            written.setnchannels(1)
            written.setsampwidth(2)
            written.setframerate(self.rate)
            written.writeframes(sound)
        return {"samples": len(sound) // 2, "rate": self.rate, "events": list(self.events)}


def main() -> int:
    """Answer every line of stdin. Returns 1, with a line on stderr, if the library is missing."""
    try:
        import espeakng_loader
    except ImportError:
        print("speaking needs the package 'espeakng-loader'; pip install 'sanbu[speech]'", file=sys.stderr)
        return 1
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    voice = Voice(library, espeakng_loader.get_data_path())
    for line in sys.stdin:
        print(json.dumps(voice.answer(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

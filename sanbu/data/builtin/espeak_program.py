"""A program of its own that speaks sentences with espeak-ng: python espeak_program.py < request.json

It imports nothing of Sanbu and is run as a separate process, because espeak-ng is licensed under GPL-3.0-or-later. The
request is {"folder": ..., "lines": [[voice, text], ...]}; line i becomes folder/0000i.wav. A fresh process that speaks
the same lines in the same order makes the same samples.
"""

import ctypes
import json
import sys
import wave
from pathlib import Path
from typing import Any

RETRIEVE, UTF8 = 1, 1  # espeak_AUDIO_OUTPUT, espeakCHARS
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main() -> int:
    """Speak every line. Returns 1, with a line on stderr, if the library or a voice is missing."""
    request = json.load(sys.stdin)
    try:
        import espeakng_loader
    except ImportError:
        print("speaking needs the package 'espeakng-loader'; pip install 'sanbu[speech]'", file=sys.stderr)
        return 1
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(RETRIEVE, 0, espeakng_loader.get_data_path().encode(), 0)
    parts: list[bytes] = []

    def collect(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    kept = CALLBACK(collect)
    library.espeak_SetSynthCallback(kept)
    for number, (voice, text) in enumerate(request["lines"]):
        parts.clear()
        if library.espeak_SetVoiceByName(voice.encode()):
            print(f"espeak-ng has no voice {voice!r}", file=sys.stderr)
            return 1
        content = text.encode()
        library.espeak_Synth(content, len(content) + 1, 0, 0, 0, UTF8, None, None)
        library.espeak_Synchronize()
        with wave.open(str(Path(request["folder"]) / f"{number:05d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(b"".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

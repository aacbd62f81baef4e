"""A foreign tokenizer.json is tried in a child process first, which has limits on time and memory.

The tokenizers library trusts its files: a damaged or malicious one can end the process, take all memory, or never come
to an end. A file that passes is known by its hash in the cache, so it is tried once. This file is also the program of
the child; it imports nothing of sanbu there.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import tokenizers

LOADING, ENCODING = 30.0, 3.0  # CPU seconds of the child
MEMORY = 3 << 30  # bytes of address space of the child; a vocabulary of 260,000 tokens takes about 1 GB
PATIENCE = 300.0  # seconds after which the child is ended in any case
TEXTS = ("Hello world, it's 12345 times.\n\n  x = f(y);\r\n\tçà 三步 α → β 👍🏽" * 20, "", " ", "\0", "e\u0301")
PATTERN = re.compile(r'"Regex":\s*"((?:[^"\\]|\\.)*)"')
RUN = 64  # length of runs of one character, at which an endless expression is endless


def check_foreign(path: Path) -> None:
    """Raise TokenizerError for a tokenizer.json that the library cannot read, or not within the limits."""
    from sanbu.codecs.tokenizer import TokenizerError
    from sanbu.files import cache_root, file_hash

    mark = cache_root() / "tokenizers" / f"{file_hash(path)}-{tokenizers.__version__}"
    if mark.exists():
        return
    reason = try_apart(path)
    if reason:
        raise TokenizerError(f"{path} is not a usable tokenizer.json: {reason}")
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def try_apart(path: Path) -> str:
    """Read the file in a child and encode a few texts; what is wrong, or an empty text."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", __file__, str(path)],
            env={**os.environ, "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it was not read within {PATIENCE:g} s"
    phase, _, said = child.stdout.strip().rpartition("\n")[2].partition(":")
    if phase == "wrong":
        return said.strip()
    if phase == "right" and child.returncode == 0:
        return ""
    doing = "encoding text with it" if phase == "loaded" else "reading it"
    if child.returncode == -signal.SIGPROF:
        return f"{doing} takes more than {ENCODING if phase == 'loaded' else LOADING:g} s"
    return f"{doing} takes more than {MEMORY >> 30} GB, or ends the process"


# -- in the child ------------------------------------------------------------------------------------------------------


def limit(seconds: float) -> None:
    """End this process when it has used so many seconds of the CPU."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def samples(content: str) -> Iterator[str]:
    """Texts to encode: usual ones, and runs of the characters that the regular expressions of the file name."""
    yield from TEXTS
    named = dict.fromkeys("aA0 \n.步" + "".join(PATTERN.findall(content)))
    yield from (character * RUN + end for character in list(named)[:200] for end in ("", "!", "\n"))


def attempt(path: str) -> None:
    """(In the child) Do all that the parent will do. Says how far it came; the library may end the process."""
    with contextlib.suppress(ImportError):  # there is no such module on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit(LOADING)
    loaded = tokenizers.Tokenizer.from_file(path)
    loaded.encode_special_tokens = True
    loaded.no_truncation()
    loaded.no_padding()
    print("loaded:", flush=True)
    limit(ENCODING)
    for text in samples(Path(path).read_text(encoding="utf-8")):
        with contextlib.suppress(Exception):  # a text that it refuses; a fault of the library is no Exception
            loaded.encode(text, add_special_tokens=False)
    print("right:", flush=True)


if __name__ == "__main__":
    try:
        attempt(sys.argv[1])
    except BaseException as error:
        print("wrong: " + (" ".join(str(error).split())[:160] or type(error).__name__), flush=True)

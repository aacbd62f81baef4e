"""Tries a JSON schema in a child process, which has limits on time and memory.

Some schemas take llguidance minutes or gigabytes, and its work cannot be interrupted. What the child compiles within
its limits, the server compiles in the same time. This file is also the program of the child; it imports nothing of
sanbu.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

SECONDS = 2.0  # of processor time per schema, after which the child ends
MEMORY = 128 << 20  # bytes that a schema may take
OPTIONS: Any = {"whitespace_flexible": False}  # small models would otherwise generate endless spaces
LIMITS: Any = {"max_lexer_states": 40_000, "verbose_errors": False}


class SchemaChild:
    """A child that compiles schemas for one tokenizer. Safe to share between threads.

    tokens: the bytes of each token. special: ids without bytes. end: the id of the end token.
    """

    def __init__(self, tokens: Sequence[bytes], special: Sequence[int], end: int) -> None:
        self.setup = (list(tokens), list(special), end)
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None

    def check(self, schema: str) -> str:
        """What is wrong with a schema, in one line; empty if it compiles within the limits."""
        with self.lock:
            try:
                if self.child is None:
                    self.child = start()
                    self._exchange(self.setup)
                return str(self._exchange(schema))
            except (EOFError, BrokenPipeError):
                late = self.close() == -getattr(signal, "SIGPROF", 0)
                reason = f"it takes more than {SECONDS:g} s to compile" if late else "it takes too much memory"
                return f"{reason}; make it simpler"

    def close(self) -> int:
        """End the child; returns its exit status."""
        child, self.child = self.child, None
        if child is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
        child.kill()
        child.communicate()
        return child.returncode

    def __del__(self) -> None:
        self.close()

    def _exchange(self, message: Any) -> Any:
        child = self.child
        assert child is not None and child.stdin is not None and child.stdout is not None
        pickle.dump(message, child.stdin)
        child.stdin.flush()
        return pickle.load(child.stdout)


def start() -> subprocess.Popen[bytes]:
    """Start this file as a child that ends with its parent and does not hear interrupts from the terminal."""
    return subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


class Words:
    """A tokenizer in llguidance's interface. encode: the ids of a text, which only the server needs."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: list[int], end: int, encode: Any = None) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, special, end
        self.encode: Any = encode or (lambda text: [])

    def __call__(self, text: bytes) -> list[int]:
        return list(self.encode(text.decode("utf-8", "replace")))


def matcher_of(tokenizer: Any, schema: str) -> Any:
    """The matcher of a schema at its beginning. Raises ValueError for a schema that is not supported."""
    import llguidance

    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, defaults=OPTIONS)
    made = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=llguidance.LLParserLimits(**LIMITS))
    if made.is_error():
        raise ValueError(made.get_error())
    return made


def tokenizer_of(words: Words) -> Any:
    """The tokenizer of llguidance."""
    import llguidance

    wrapped = llguidance.TokenizerWrapper(words)
    return llguidance.LLTokenizer(wrapped, n_vocab=len(words.tokens), eos_token=words.eos_token_id)


# -- in the child ------------------------------------------------------------------------------------------------------


def serve() -> None:
    """(In the child) Read the tokenizer, then answer each schema with what is wrong."""
    answers = os.fdopen(os.dup(1), "wb")
    tokenizer = tokenizer_of(Words(*pickle.load(sys.stdin.buffer)))
    limit_memory()
    send(answers, "")
    while True:
        try:
            schema = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        limit(SECONDS)
        try:
            matcher_of(tokenizer, schema).compute_bitmask()
            wrong = ""
        except Exception as error:  # a foreign library
            wrong = (str(error) or type(error).__name__).splitlines()[0]
        limit(0)
        send(answers, wrong)


def limit_memory() -> None:
    """Allow this process only so much more memory than it has now, where the system can do that."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def send(answers: Any, content: str) -> None:
    """Send one answer to the parent."""
    pickle.dump(content, answers)
    answers.flush()


def limit(seconds: float) -> None:
    """End this process after some seconds of processor time, whatever it does then; 0 takes the limit back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    serve()

"""Renders foreign Jinja templates in a child process, which has limits on time and memory.

The parent keeps one child per template and sends it lines of JSON. This file is also the program of
the child; it imports nothing of sanbu.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 3.0  # time limit of one request, after which the child ends itself
MEMORY = 192 << 20  # bytes of address space of the child
LONGEST = 1 << 20  # most characters of a rendered conversation
OPEN, CLOSE = "\ufdd0", "\ufdd1"  # around what {% generation %} encloses: code points that no text contains


class RenderError(Exception):
    """A template that failed, or a child that exceeded its limits; the text says why."""


class Renderer:
    """One template in a child process. Safe to share between threads, and between forks, which start their own child.

    date: what strftime_now shows, as 2026-11-26; empty for the current date and time.
    """

    def __init__(self, source: str, date: str = "") -> None:
        self.setup = {"source": source, "date": date}
        self.lock = threading.Lock()
        self.child: subprocess.Popen[str] | None = None
        self.owner = 0  # process that started the child

    def render(self, tasks: Sequence[dict[str, Any]]) -> list[str]:
        """The text of each task, a dictionary of what the template sees. Raises RenderError."""
        with self.lock:
            if self.child is None or self.owner != os.getpid():
                self.child, self.owner = start(), os.getpid()
                self._exchange(self.setup)
            return self._exchange(list(tasks))

    def close(self) -> None:
        """End the child."""
        child, self.child = self.child, None
        if child is not None and self.owner == os.getpid():
            child.kill()
            child.communicate()

    def __del__(self) -> None:
        self.close()

    def _exchange(self, message: Any) -> list[str]:
        """Send one line and read one. The child answers every line with a list of texts, or with an error."""
        child = self.child
        assert child is not None and child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(message) + "\n")
            child.stdin.flush()
        try:
            line = child.stdout.readline()
        except BaseException:  # interrupted: the answer would be taken for that of the next request
            self.close()
            raise
        if not line:
            late = child.wait() == -signal.SIGALRM
            self.close()
            raise RenderError(f"it did not finish within {SECONDS:g} s" if late else "its process ended unexpectedly")
        answer = json.loads(line)
        if "error" in answer:
            raise RenderError(answer["error"])
        return list(answer["texts"])


def start() -> subprocess.Popen[str]:
    """Start this file as a child that ends with its parent and does not hear interrupts from the terminal."""
    return subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        encoding="utf-8",
    )


# -- in the child ------------------------------------------------------------------------------------------------------


class Generation(Extension):  # type: ignore[misc]
    """{% generation %} ... {% endgeneration %}: the text in it has a loss."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


class Sandbox(ImmutableSandboxedEnvironment):  # type: ignore[misc]
    """A sandbox that also refuses to repeat strings and lists, which could take seconds and gigabytes."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(side, (int, float)) for side in (left, right)):
            raise SecurityError(f"{operator} is not allowed here")
        return super().call_binop(context, operator, left, right)


def environment(date: str) -> Sandbox:
    """The environment in which transformers renders chat templates."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    def strftime_now(form: str) -> str:
        return (datetime.fromisoformat(date) if date else datetime.now()).strftime(form)

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.globals |= {"raise_exception": refuse, "strftime_now": strftime_now}
    made.filters["tojson"] = to_json
    return made


def limit(seconds: float) -> None:
    """End this process after some seconds, whatever it does then; 0 takes the limit back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def serve() -> None:
    """(In the child) Read the template, then answer each line of tasks."""
    with contextlib.suppress(ImportError):  # there is no such module on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    template = None
    for line in sys.stdin:
        limit(SECONDS)
        try:
            message = json.loads(line)
            if template is None:
                template = environment(message["date"]).from_string(message["source"])
                answer: dict[str, Any] = {"texts": []}
            else:
                answer = {"texts": [template.render(**task) for task in message]}
                longest = max(map(len, answer["texts"]), default=0)
                if longest > LONGEST:
                    answer = {"error": f"it writes {longest:,} characters; at most {LONGEST:,} are allowed"}
        except MemoryError:
            answer = {"error": "it needs too much memory"}
        except Exception as error:  # a template is foreign code and can raise anything
            answer = {"error": str(error).splitlines()[0] if str(error) else type(error).__name__}
        print(json.dumps(answer), flush=True)
        limit(0)


if __name__ == "__main__":
    serve()

"""Chat in a terminal: one run, or several side by side, each with its own conversation history."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import typer

from sanbu.codecs.chat import ChatCodec, Message, recent
from sanbu.config import SanbuError, kind_of
from sanbu.display.terminal import harmless
from sanbu.run import Run

NARROW = 20  # characters: answers stand side by side where each has as many


class Speaks(Protocol):
    """A chat partner with a conversation history."""

    name: str

    def answer(self, words: str, seed: int) -> Iterator[str]:
        """The answer, piece by piece."""


class Speaker:
    """A run as a chat partner. A run of plain text continues the message."""

    def __init__(self, run: Run, overrides: tuple[str, ...], system: str | None) -> None:
        self.run, self.overrides, self.name = run, overrides, run.folder.name
        self.said: list[Message] = [{"role": "system", "content": system}] if system else []

    @classmethod
    def open(
        cls, folder: Path, overrides: tuple[str, ...] = (), system: str | None = None, weights: str = "full"
    ) -> Speaker:
        """Open a run folder. Raises SanbuError when its model does not write text."""
        from sanbu.serve.weights.convert import convert_run

        run = Run.open(folder)
        if run.codec.medium != "text" or not run.recipe.strategy.draws:
            raise SanbuError(f"{folder} does not write text: its model is {kind_of(run.recipe.model)!r}")
        return cls(convert_run(run.to("auto"), weights), overrides, system)

    def answer(self, words: str, seed: int) -> Iterator[str]:
        """The answer, piece by piece; then it joins the conversation."""
        self.said.append({"role": "user", "content": words})
        whole = ""
        for piece in self.run.stream(self._prompt(words), seed, overrides=self.overrides):
            whole += piece
            yield piece
        self.said.append({"role": "assistant", "content": whole.strip()})

    def _prompt(self, words: str) -> Any:
        """The conversation, cut at the oldest turns to fit the context; plain models get the message alone."""
        codec = self.run.codec
        if not isinstance(codec, ChatCodec):
            return words + "\n"
        most = getattr(self.run.recipe.strategy, "max_tokens", 0)
        self.said = recent(codec.template, self.said, getattr(self.run.model, "context", 1 << 30), most)
        return [self.said]


def answer_all(speakers: Sequence[Speaks], words: str, seed: int, quiet: bool = False) -> list[str]:
    """Every speaker's answer to the same message, shown as it is generated."""
    texts = ["" for _ in speakers]
    streams = zip_longest(*(speaker.answer(words, seed) for speaker in speakers), fillvalue="")
    if quiet or len(speakers) == 1:
        for pieces in streams:
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
            if not quiet:
                sys.stdout.write(harmless(pieces[0]))
                sys.stdout.flush()
        if not quiet:
            sys.stdout.write("\n")
        return texts
    from rich.console import Console
    from rich.live import Live

    from sanbu.display.tables import output_width

    console = Console(width=output_width(), highlight=False)
    with Live(answer_columns(speakers, texts), console=console, refresh_per_second=12) as live:
        for pieces in streams:
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
            live.update(answer_columns(speakers, texts))
    if not console.is_terminal:
        console.line()  # which Live leaves out
    return texts


def answer_columns(speakers: Sequence[Speaks], texts: Sequence[str]) -> Any:
    """Answers in columns, under the names of their runs; below each other where the columns would be narrow."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from sanbu.display.tables import output_width

    shown = [Text(text.strip(), overflow="fold") for text in texts]
    names = [Text(speaker.name, "bold", overflow="fold") for speaker in speakers]
    if output_width() // len(speakers) < NARROW:
        return Group(*(part for pair in zip(names, shown, strict=True) for part in (*pair, "")))
    table = Table(expand=True, show_header=False)
    for _ in speakers:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*names, end_section=True)
    table.add_row(*shown)
    return table


def converse(speakers: Sequence[Speaks], seed: int) -> None:
    """Chat until an empty line or the end of the input."""
    names = ", ".join(speaker.name for speaker in speakers)
    typer.echo(f"{names}: type a message; an empty line quits.")
    turn = 0
    while True:
        try:
            words = typer.prompt("", default="", show_default=False, prompt_suffix="> ")
        except (typer.Abort, EOFError):
            return
        if not words:
            return
        answer_all(speakers, words, seed + turn)
        turn += 1

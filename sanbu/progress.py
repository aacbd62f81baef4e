"""What a person sees while something long goes on. A watcher is told; it never changes anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from sanbu.run import Run
    from sanbu.training import Training


class Watcher(Protocol):
    """Told of a run's beginning, each step, each sample, and the end."""

    def begin(self, run: Run, training: Training) -> None: ...

    def step(self, row: Mapping[str, Any]) -> None: ...

    def sample(self, path: Path, results: Sequence[Any]) -> None: ...

    def end(self, run: Run, interrupted: bool) -> None: ...

    def close(self) -> None:
        """Called last, also after an error."""


class Silent:
    """Says nothing."""

    def begin(self, run: Run, training: Training) -> None:
        pass

    def step(self, row: Mapping[str, Any]) -> None:
        pass

    def sample(self, path: Path, results: Sequence[Any]) -> None:
        pass

    def end(self, run: Run, interrupted: bool) -> None:
        pass

    def close(self) -> None:
        pass


class Watchers:
    """Several watchers, told in turn."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def begin(self, run: Run, training: Training) -> None:
        for watcher in self.watchers:
            watcher.begin(run, training)

    def step(self, row: Mapping[str, Any]) -> None:
        for watcher in self.watchers:
            watcher.step(row)

    def sample(self, path: Path, results: Sequence[Any]) -> None:
        for watcher in self.watchers:
            watcher.sample(path, results)

    def end(self, run: Run, interrupted: bool) -> None:
        for watcher in self.watchers:
            watcher.end(run, interrupted)

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()


@lru_cache
def error_stream() -> Console:
    """Standard error, where everything that is not a result is said."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bytes(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar in bytes with time left, where somebody looks; otherwise nothing."""
    if not error_stream().is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_stream(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


@contextlib.contextmanager
def progress_rows(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar in rows with time left, where somebody looks; otherwise nothing."""
    if not error_stream().is_terminal:
        yield lambda done: None
        return
    from rich.progress import Progress

    with Progress(console=error_stream(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)

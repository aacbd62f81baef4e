"""Long work: how far it is and how long it takes, as bars in a terminal and as lines elsewhere; and interrupts.

Everything here goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

A = TypeVar("A")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
FIRST, LONGEST = 10.0, 60.0  # seconds: before the first line about long work, and between two lines at most
BAR = 24  # characters


def in_main_thread() -> bool:
    """Whether this is the thread that hears signals."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that what was begun is removed again.

    The first signal counts; others are ignored until the block is left, since they would interrupt the removal.
    """
    heard = [number for number in SIGNALS if signal.getsignal(number) not in (stop_now, signal.SIG_IGN, None)]
    old = {number: signal.signal(number, stop_now) for number in heard} if in_main_thread() else {}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def stop_now(number: int, frame: FrameType | None) -> None:
    """The handler of `interruptible`."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a request to save and stop; a second one stops at once.

    again: False in one of several processes, which may get the same signal from the terminal and from torchrun.
    """

    def __init__(self, again: bool = True) -> None:
        self.requested, self.again = False, again
        self.old: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if in_main_thread():
            self.old = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self.again:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else self.old[number])


def stop_with_parent() -> None:
    """(In a process of multiprocessing) End this process as SIGTERM does when the one that began it has ended."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    if parent is not None:
        threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def start(work: Callable[[], A]) -> Future[A]:
    """Begin work in a thread of its own that does not outlive the program.

    Python hears Ctrl-C between two of its own instructions, so not while the main thread computes in a library; it
    does while the main thread waits for the result.
    """
    future: Future[A] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@lru_cache
def error_stream() -> Console:
    """Standard error, where everything that is not a result is printed."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


# -- how far long work is ---------------------------------------------------------------------------------------------


class Lines:
    """How far long work is, in lines for files and pipes: what, how far, time left; then the time it took.

    The first comes after ten seconds, the next after 20 more, 40 more, and then once a minute. A line needs a call of
    `say`, so none comes while a single step takes longer. total: in any unit, None if unknown; done: before the start.
    """

    def __init__(self, what: str, total: float | None, done: float = 0.0) -> None:
        self.what, self.total, self.before, self.done = what, total, done, done
        self.began = self.last = time.monotonic()
        self.wait, self.over = FIRST, False

    def say(self, text: str) -> None:
        """Print a line if it is time for one, or if long work is complete. text: how far it is."""
        now = time.monotonic()
        complete = self.total is not None and self.done >= self.total * (1 - 1e-9)
        since = self.began if complete else self.last
        if self.over or now - since < (FIRST if complete else self.wait):
            return
        self.last, self.wait, self.over = now, min(2 * self.wait, LONGEST), complete
        shown = [self.what, text, f"took {duration(now - self.began)}" if complete else self.left(now)]
        error_stream().print("  ".join(filter(None, shown)), markup=False)

    def left(self, now: float) -> str:
        """The time left if the rest is as fast as what is done; empty if that is unknown."""
        if self.total is None or self.done <= self.before:
            return ""
        rest = (now - self.began) * (self.total - self.done) / (self.done - self.before)
        return f"{duration(rest)} left"


def duration(seconds: float) -> str:
    """Seconds as text, in two units at most: 45 s, 1 min 20 s, 2 h 5 min."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def drawn_bar(what: str, total: float | None, *columns: ProgressColumn) -> Iterator[Callable[..., None]]:
    """A bar in the terminal with a description, which may take several lines, and the columns. Yields its update."""
    from rich.progress import Progress, TextColumn
    from rich.table import Column

    description = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
    with Progress(description, *columns, console=error_stream(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda **change: bar.update(task, **change)


@contextlib.contextmanager
def progress_bytes(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar in bytes with time left; outside a terminal a line now and then. See `Lines`."""
    from rich.filesize import decimal

    if not error_stream().is_terminal:
        lines = Lines(what, total)

        def say(done: int) -> None:
            lines.done += done
            lines.say(decimal(int(lines.done)) + (f" of {decimal(total)}" if total is not None else ""))

        yield say
        return
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn

    with drawn_bar(what, total, BarColumn(BAR), DownloadColumn(), TimeRemainingColumn()) as update:
        yield lambda done: update(advance=done)


@contextlib.contextmanager
def progress_tasks(what: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar with time left and the name of the current task; outside a terminal a line now and then. See `Lines`.

    total: of the amounts of work that are reported with each task, in any unit.
    """
    if not error_stream().is_terminal:
        lines = Lines(what, total)

        def say(done: float, now: str) -> None:
            lines.done += done
            lines.say(f"{100 * lines.done / max(total, 1e-9):.0f} %  {now}".rstrip())

        yield say
        return
    from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn

    with drawn_bar(what, total, BarColumn(BAR), TaskProgressColumn(), TimeRemainingColumn()) as update:
        yield lambda done, now: update(description=f"{what}: {now}", advance=done)


@contextlib.contextmanager
def progress_rows(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """A bar in rows with time left; outside a terminal a line now and then. See `Lines`."""
    if not error_stream().is_terminal:
        lines = Lines(what, total)

        def say(done: float) -> None:
            lines.done += done
            lines.say(f"{lines.done:,.0f} of {total:,}")

        yield say
        return
    from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn

    with drawn_bar(what, total, BarColumn(BAR), TaskProgressColumn(), TimeRemainingColumn()) as update:
        yield lambda done: update(advance=done)

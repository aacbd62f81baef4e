"""Long work: progress bars with time left, none outside a terminal, and interrupts that are heard meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

A = TypeVar("A")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def duration(seconds: float) -> str:
    """Seconds as text, in two units at most: 45 s, 1 min 20 s, 2 h 5 min."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


@lru_cache
def error_stream() -> Console:
    """Standard error, where everything that is not a result is printed."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bytes(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar in bytes with time left; nothing outside a terminal."""
    if not error_stream().is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_stream(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


@contextlib.contextmanager
def progress_tasks(what: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar with time left and the name of the current task; outside a terminal a line for each task.

    total: of the amounts of work that are reported with each task, in any unit.
    """
    if not error_stream().is_terminal:
        said = ""

        def say(done: float, now: str) -> None:
            nonlocal said
            if now != said:
                error_stream().print(f"{what}: {now}")
                said = now

        yield say
        return
    from rich.progress import Progress

    with Progress(console=error_stream(), transient=True) as bar:
        task = bar.add_task(what, total=total)

        def show(done: float, now: str) -> None:
            bar.update(task, description=f"{what}: {now}", advance=done)

        yield show


@contextlib.contextmanager
def progress_rows(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar in rows with time left; nothing outside a terminal."""
    if not error_stream().is_terminal:
        yield lambda done: None
        return
    from rich.progress import Progress

    with Progress(console=error_stream(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)

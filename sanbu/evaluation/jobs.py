"""Jobs: long work, each part in a process of its own on one thread, side by side, and how far each is.

A job that was done before is left out, so interrupted jobs go on where they were.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

from sanbu.config import SanbuError
from sanbu.progress import stop_with_parent
from sanbu.run import Run

PRIOR = 60.0  # seconds of work that took as long as they were said to, before any has
LOOK = 0.5  # seconds between two looks at the processes
PATIENCE = 30  # seconds that a process has to save its work when it is stopped


@dataclass(frozen=True)
class Job:
    """One part of the work.

    work: a function of a module, called with the arguments. made: a file that exists once the work is done. seconds:
    about how long it takes. run: the run folder that it trains, if any. after: the names of jobs that come before.
    """

    name: str
    work: Callable[..., object]
    arguments: tuple[Any, ...]
    made: Path
    seconds: float
    run: Path | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a job is. part: of the work, 0 to 1. left: about how many seconds of its own work. text: its step."""

    job: Job
    status: Literal["waiting", "running", "done"]
    part: float
    left: float
    text: str = ""


@dataclass
class Jobs:
    """Jobs, and the processes of those that run. workers: processes at once. nice: lowers their priority.

    log: a file for what the processes print.
    """

    jobs: Sequence[Job]
    workers: int
    log: Path
    nice: int = 0
    running: dict[str, tuple[BaseProcess, Connection, float]] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)  # seconds of each job that ended here
    error: SanbuError | None = None  # what stopped the work

    def work(self) -> Generator[None]:
        """Do the jobs, in their order, and yield twice per second. Closing it stops the processes; they save first.

        Raises SanbuError for the first job that fails. A new folder in which nothing was made is removed again.
        """
        new = not self.log.parent.exists()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            while self.unfinished():
                for job in self.ready()[: self.workers - len(self.running)]:
                    self.start(job)
                wait([process.sentinel for process, *_ in self.running.values()], LOOK)
                for name in [name for name, (process, *_) in self.running.items() if not process.is_alive()]:
                    self.end(name)
                yield
        except SanbuError as error:
            self.error = error
            raise
        finally:
            self.stop()
            if new and all(path == self.log and not path.stat().st_size for path in self.log.parent.iterdir()):
                rmtree(self.log.parent)

    def unfinished(self) -> list[Job]:
        """Jobs that are not done."""
        return [job for job in self.jobs if job.name in self.running or not job.made.exists()]

    def ready(self) -> list[Job]:
        """Jobs that can begin now."""
        missing = {job.name for job in self.unfinished()}
        return [
            job for job in self.unfinished() if job.name not in self.running and not missing.intersection(job.after)
        ]

    def start(self, job: Job) -> None:
        """Begin a job."""
        context = processes()
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=perform, args=(job.work, job.arguments, sender, str(self.log), self.nice))
        process.start()
        sender.close()
        self.running[job.name] = process, receiver, time.monotonic()

    def end(self, name: str) -> None:
        """Note a job whose process has ended. Raises SanbuError if it failed."""
        process, receiver, since = self.running.pop(name)
        job = next(job for job in self.jobs if job.name == name)
        self.took[name] = time.monotonic() - since
        with contextlib.closing(receiver), contextlib.suppress(EOFError):
            raise SanbuError(f"{name}: {receiver.recv()}")
        if process.exitcode:
            said = f"; see {self.log}" if self.log.stat().st_size else ""
            raise SanbuError(f"{name} ended with exit code {process.exitcode}{said}")
        if not job.made.exists():
            raise SanbuError(f"{name} was interrupted; run the same command again to continue")

    def stop(self) -> None:
        """Stop the processes; training saves a checkpoint first."""
        for process, *_ in self.running.values():
            process.terminate()
        until = time.monotonic() + PATIENCE
        for process, receiver, _ in self.running.values():
            process.join(max(0.1, until - time.monotonic()))
            if process.is_alive():
                process.kill()
            receiver.close()
        self.running.clear()

    def progress(self) -> list[Progress]:
        """How far every job is."""
        known = [job for job in self.jobs if job.name in self.took]
        took = sum(self.took[job.name] for job in known)
        said = sum(job.seconds for job in known)
        pace = (took + PRIOR) / (said + PRIOR)
        missing = {job.name for job in self.unfinished()}
        return [self.progress_of(job, pace, job.name in missing) for job in self.jobs]

    def progress_of(self, job: Job, pace: float, missing: bool) -> Progress:
        """How far one job is. pace: seconds that jobs took per second that they were said to take."""
        if not missing:
            return Progress(job, "done", 1.0, 0.0)
        running = self.running.get(job.name)
        step, steps, spent = steps_of(job.run)
        spent = spent or (time.monotonic() - running[2] if running else 0.0)
        part = step / steps if step else min(0.95, spent / (job.seconds * pace))
        left = spent / step * (steps - step) if step else job.seconds * pace * (1 - part)
        text = f"step {step:,} of {steps:,}" if step else ""
        return Progress(job, "running" if running else "waiting", part, left, text)

    def done(self) -> float:
        """How much of the work is done, in the seconds that the jobs are said to take."""
        return sum(each.part * each.job.seconds for each in self.progress())

    def left(self) -> float:
        """Seconds until all jobs are done, about: of the longest chain, or of all the work shared by the workers."""
        found = {each.job.name: each for each in self.progress()}

        def chain(name: str) -> float:
            return found[name].left + max((chain(before) for before in found[name].job.after), default=0.0)

        return max(*map(chain, found), sum(each.left for each in found.values()) / self.workers)


def processes() -> Any:
    """How processes begin: on Linux as copies of one that has imported the library, which saves seconds of each."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sanbu.loop"])
    return context


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def perform(work: Callable[..., object], arguments: tuple[Any, ...], sender: Connection, log: str, nice: int) -> None:
    """(In a process of its own) Do the work of a job on one thread, and send the error that ended it, if any."""
    import torch
    from threadpoolctl import threadpool_limits

    stop_with_parent()
    with Path(log).open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    if hasattr(os, "nice"):
        os.nice(nice)
    torch.set_num_threads(1)
    logging.captureWarnings(True)
    try:
        with threadpool_limits(1):  # of numpy and scikit-learn
            work(*arguments)
    except SanbuError as error:
        sender.send(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def steps_of(folder: Path | None) -> tuple[int, int, float]:
    """The steps that a run has taken, its steps in all, and the seconds they took; zeros before it begins."""
    if folder is None or not (folder / "recipe.json").exists():
        return 0, 0, 0.0
    with contextlib.suppress(SanbuError):
        run = Run.open(folder)
        rows = run.metrics()
        if rows:
            return rows[-1]["step"], run.recipe.schedule.steps, sum(row["time/seconds"] for row in rows)
    return 0, 0, 0.0

"""Jobs that do not share a batch: other strategies, pictures, embeddings. One after the other, step by step."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sanbu.serve.request import Busy, Finish


@dataclass(eq=False)
class Job:
    """Steps, and who is told what each of them yields. The end is told as `ended`: stop, cancelled or error."""

    steps: Iterator[Any]
    deliver: Callable[[Any], None]
    ended: Callable[[Finish], None]
    cancelled: bool = field(init=False, default=False)

    def cancel(self) -> None:
        """Stop before the next step; may be called from any thread."""
        self.cancelled = True


class Solo:
    """A lane of jobs. queue: how many may wait."""

    def __init__(self, queue: int = 64) -> None:
        self.queue = queue
        self.jobs: deque[Job] = deque()
        self.counts: Counter[str] = Counter()
        self.changed = threading.Condition()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn. Raises Busy when too many wait."""
        with self.changed:
            if len(self.jobs) > self.queue:
                raise Busy(f"{len(self.jobs)} requests are waiting already, and {self.queue} may; try again later")
            self.jobs.append(job)
            self.counts["requests"] += 1
            self.changed.notify()

    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self.jobs)

    def step(self) -> None:
        """One step of the oldest job."""
        job = self.jobs[0]
        if job.cancelled:
            self._finish("cancelled")
            return
        try:
            made = next(job.steps)
        except StopIteration:
            self._finish("stop")
            return
        self.counts["steps"] += 1
        job.deliver(made)

    def fail(self) -> None:
        """End the oldest job."""
        self._finish("error")

    def _finish(self, how: Finish) -> None:
        with self.changed:
            job = self.jobs.popleft()
        self.counts[f"finished_{how}"] += 1
        job.ended(how)

"""Jobs that cannot be batched (other strategies, images, embeddings): run one after the other, step by step."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sanbu.serve.request import Busy, Finish, share_exceeded


@dataclass(eq=False)
class Job:
    """Steps, a callback for the result of each, a callback for the end (stop, cancelled or error), and who asks."""

    steps: Iterator[Any]
    deliver: Callable[[Any], None]
    finish: Callable[[Finish], None]
    owner: str = ""
    cancelled: bool = field(init=False, default=False)

    def cancel(self) -> None:
        """Stop before the next step; may be called from any thread."""
        self.cancelled = True


class SingleLane:
    """A lane of jobs, oldest first, while owners take turns. queue: maximum number of waiting jobs."""

    def __init__(self, queue: int = 64) -> None:
        self.queue = queue
        self.jobs: deque[Job] = deque()
        self.counts: Counter[str] = Counter()
        self.changed = threading.Condition()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Busy when the queue is full."""
        with self.changed:
            if share_exceeded(self.jobs, job.owner, 1, self.queue + 1):
                raise Busy(
                    f"the queue is full: {len(self.jobs)} requests are waiting, allowed: {self.queue}; retry later"
                )
            self.jobs.append(job)
            self.counts["requests"] += 1
            self.changed.notify()

    def busy(self) -> bool:
        """Whether there is work to do."""
        return bool(self.jobs)

    def step(self) -> None:
        """Do one step of the oldest job."""
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
        """End the oldest job with an error."""
        self._finish("error")

    def _finish(self, how: Finish) -> None:
        with self.changed:
            job = self.jobs.popleft()
            following = next((one for one in self.jobs if one.owner != job.owner), None)
            if following is not None:
                self.jobs.remove(following)
                self.jobs.appendleft(following)
        self.counts[f"finished_{how}"] += 1
        job.finish(how)

"""The one thread that computes: every lane that has something to do gets one step in turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

log = logging.getLogger("sanbu.serve")


class Lane(Protocol):
    """Something that is done step by step; `changed` is notified when there is something new to do."""

    changed: threading.Condition

    def busy(self) -> bool:
        """Whether there is something to do."""

    def step(self) -> None:
        """A little of it."""

    def fail(self) -> None:
        """A step has raised: end what it was about, so that the next can go on."""


class Worker:
    """Lanes, and the thread that steps them. Text requests share the steps of one lane; other jobs have their own."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes, self.going = lanes, True
        self.changed = threading.Condition()
        for lane in lanes:
            lane.changed = self.changed
        self.thread = threading.Thread(target=self.run, name="sanbu-worker", daemon=True)

    def start(self) -> None:
        """Begin to compute in a thread of its own."""
        self.thread.start()

    def run(self) -> None:
        """Step while there is something to do, and wait where there is not, until `stop`."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: any(lane.busy() for lane in self.lanes) or not self.going)
                if not any(lane.busy() for lane in self.lanes):
                    return
            for lane in self.lanes:
                if lane.busy():
                    self._step(lane)

    def stop(self) -> None:
        """Let `run` return when all is answered."""
        with self.changed:
            self.going = False
            self.changed.notify()

    def _step(self, lane: Lane) -> None:
        try:
            lane.step()
        except Exception:  # one lane's failure must not take the others with it
            log.exception("a step failed; what it was about is ended")
            lane.fail()

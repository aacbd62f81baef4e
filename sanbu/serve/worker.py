"""The worker thread: every busy lane gets one step in turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

log = logging.getLogger("sanbu.serve")


class Lane(Protocol):
    """Work that is done in steps; `changed` is notified when new work arrives."""

    changed: threading.Condition

    def busy(self) -> bool:
        """Whether there is work to do."""

    def step(self) -> None:
        """Do one step."""

    def fail(self) -> None:
        """A step has raised: find the request that caused it and end it, so that the others can continue."""


class Worker:
    """Lanes, and the thread that steps them."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes: list[Lane] = []
        self.going, self.changed = True, threading.Condition()
        for lane in lanes:
            self.add(lane)
        self.thread = threading.Thread(target=self.run, name="sanbu-worker", daemon=True)

    def add(self, lane: Lane) -> None:
        """One more lane, also while the thread runs."""
        lane.changed = self.changed
        with self.changed:
            self.lanes = [*self.lanes, lane]

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def run(self) -> None:
        """Step the busy lanes and wait while all are idle, until `stop`."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: any(lane.busy() for lane in self.lanes) or not self.going)
                if not any(lane.busy() for lane in self.lanes):
                    return
            for lane in self.lanes:
                if lane.busy():
                    self._step(lane)

    def stop(self) -> None:
        """Let `run` return once all requests are finished."""
        with self.changed:
            self.going = False
            self.changed.notify()

    def _step(self, lane: Lane) -> None:
        try:
            lane.step()
        except Exception:  # a failure in one lane must not stop the others
            log.exception("a step failed; the request that caused it ends with an error")
            lane.fail()

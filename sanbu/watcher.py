"""Watchers: callbacks of a run in training. Subclass `Watcher` and override what you need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sanbu.run import Run
    from sanbu.training import Training

STOP: Final = "stop"  # what `Watcher.step` returns to end the run after this step


class Watcher:
    """Called at the start of a run, at each step, each sample, and at the end. Every method does nothing by default.

    >>> class Patient(sanbu.Watcher):
    ...     def step(self, row):
    ...         return sanbu.STOP if row["loss"] < 2.0 else None
    """

    def begin(self, run: Run, training: Training) -> None:
        """Called once, when everything is built and before the first step."""

    def step(self, row: Mapping[str, Any]) -> str | None:
        """Called with the metrics of each step; returning STOP saves a checkpoint and ends the run."""

    def sample(self, path: Path, results: Sequence[Any]) -> None:
        """Called with the samples that were drawn during training, and the file they were written to."""

    def rewind(self, step: int, reason: str) -> None:
        """Called when training has gone back to an earlier step."""

    def end(self, run: Run, interrupted: bool) -> None:
        """Called after the last checkpoint; interrupted: there are steps left."""

    def close(self) -> None:
        """Called last, also after an error."""


class Watchers(Watcher):
    """Several watchers as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = tuple(watchers)

    def begin(self, run: Run, training: Training) -> None:
        for watcher in self.watchers:
            watcher.begin(run, training)

    def step(self, row: Mapping[str, Any]) -> str | None:
        answers = [watcher.step(row) for watcher in self.watchers]
        return STOP if STOP in answers else None

    def sample(self, path: Path, results: Sequence[Any]) -> None:
        for watcher in self.watchers:
            watcher.sample(path, results)

    def rewind(self, step: int, reason: str) -> None:
        for watcher in self.watchers:
            watcher.rewind(step, reason)

    def end(self, run: Run, interrupted: bool) -> None:
        for watcher in self.watchers:
            watcher.end(run, interrupted)

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()

"""Who is told while a recipe is trained. A watcher is told; it never changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
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

"""What a person sees while something long goes on. A watcher is told; it never changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sanbu.run import Run
    from sanbu.training import Training


class Watcher(Protocol):
    """Told of a run's beginning, each step, each sample, remarks, and the end."""

    def begin(self, run: Run, training: Training) -> None: ...

    def step(self, row: Mapping[str, Any]) -> None: ...

    def sample(self, path: Path, results: Sequence[Any]) -> None: ...

    def note(self, line: str) -> None: ...

    def end(self, run: Run, interrupted: bool) -> None: ...


class Silent:
    """Says nothing."""

    def begin(self, run: Run, training: Training) -> None:
        pass

    def step(self, row: Mapping[str, Any]) -> None:
        pass

    def sample(self, path: Path, results: Sequence[Any]) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def end(self, run: Run, interrupted: bool) -> None:
        pass

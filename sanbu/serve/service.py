"""What is served, by name, and the one worker behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sanbu.config import SanbuError, nearest
from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import Served, Weights
from sanbu.serve.keys import Keys
from sanbu.serve.metrics import Metrics
from sanbu.serve.single_lane import Solo
from sanbu.serve.worker import Worker


class Service:
    """Runs and how they are asked. draining: it answers what it has begun and takes nothing new."""

    def __init__(self, served: Sequence[Served], solo: Solo, keys: Keys | None = None) -> None:
        self.served = {one.name: one for one in served}
        self.solo, self.keys, self.draining = solo, keys or Keys(), False
        self.metrics = Metrics(served)
        self.worker = Worker([*(one.engine for one in served if one.engine is not None), solo])

    @classmethod
    def open(
        cls, folders: Sequence[Path], keys: Keys | None = None, weights: Weights = "full", **limits: int
    ) -> Service:
        """Run folders by name; duplicates get their parent's name. Raises SanbuError for unsuitable runs."""
        solo = Solo()
        names = [folder.resolve().name for folder in folders]
        full = [
            f"{folder.resolve().parent.name}-{name}" if names.count(name) > 1 else name
            for folder, name in zip(folders, names, strict=True)
        ]
        if len(set(full)) < len(full):
            raise SanbuError(f"two runs have one name: {', '.join(full)}")
        return cls(
            [Served.open(folder, name, solo, weights, **limits) for folder, name in zip(folders, full, strict=True)],
            solo,
            keys,
        )

    def find(self, name: str) -> Served:
        """A served run. Raises APIError 404 with the nearest name."""
        if name not in self.served:
            near = nearest(name, self.served)
            raise APIError(
                404, f"no model {name[:80]!r}; there are {', '.join(self.served)}{near}", "model", "model_not_found"
            )
        return self.served[name]

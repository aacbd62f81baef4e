"""The served runs by name, and the worker thread that computes for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sanbu.config import SanbuError, nearest
from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import HostedRun, Weights
from sanbu.serve.keys import Keys
from sanbu.serve.metrics import Metrics
from sanbu.serve.single_lane import SingleLane
from sanbu.serve.worker import Worker


class Service:
    """Served runs with their worker, keys and metrics. draining: finishes running requests and accepts no new ones."""

    def __init__(self, runs: Sequence[HostedRun], single_lane: SingleLane, keys: Keys | None = None) -> None:
        self.runs = {one.name: one for one in runs}
        self.single_lane, self.keys, self.draining = single_lane, keys or Keys(), False
        self.metrics = Metrics(runs)
        self.worker = Worker([*(one.engine for one in runs if one.engine is not None), single_lane])

    @classmethod
    def open(
        cls, folders: Sequence[Path], keys: Keys | None = None, weights: Weights = "full", **limits: int
    ) -> Service:
        """Open run folders. A model is named after its folder (and parent, if ambiguous). Raises SanbuError."""
        single_lane = SingleLane()
        names = [folder.resolve().name for folder in folders]
        full = [
            f"{folder.resolve().parent.name}-{name}" if names.count(name) > 1 else name
            for folder, name in zip(folders, names, strict=True)
        ]
        if len(set(full)) < len(full):
            raise SanbuError(f"two runs have the same name: {', '.join(full)}; rename a run folder")
        return cls(
            [
                HostedRun.open(folder, name, single_lane, weights, **limits)
                for folder, name in zip(folders, full, strict=True)
            ],
            single_lane,
            keys,
        )

    def find(self, name: str) -> HostedRun:
        """A served run. Raises APIError 404 with the nearest name."""
        if name not in self.runs:
            near = nearest(name, self.runs)
            raise APIError(
                404, f"no model {name[:80]!r}; available: {', '.join(self.runs)}{near}", "model", "model_not_found"
            )
        return self.runs[name]

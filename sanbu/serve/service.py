"""The served runs by name, and the worker thread that computes for all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from sanbu.config import SanbuError, nearest
from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.keys import Keys
from sanbu.serve.metrics import Metrics
from sanbu.serve.single_lane import SingleLane
from sanbu.serve.team import Team
from sanbu.serve.weights.convert import Weights
from sanbu.serve.worker import Worker

log = logging.getLogger("sanbu.serve")


@dataclass(frozen=True)
class Expected:
    """A run that is served once it is trained. writes: text, not pictures. state: how far it is, in words."""

    name: str
    folder: Path
    writes: bool
    state: Callable[[], str]


class Service:
    """Served runs with their worker, keys and metrics. draining: finishes running requests and accepts no new ones.

    leaving: will be draining soon, which /health says already.

    expected: runs that are still trained. They have their names from the start, and `open_finished` serves them.
    """

    def __init__(
        self,
        runs: Sequence[HostedRun],
        single_lane: SingleLane,
        keys: Keys | None = None,
        expected: Sequence[Expected] = (),
    ) -> None:
        self.runs: dict[str, HostedRun] = {}
        self.expected = {one.name: one for one in expected}
        self.opening = Lock()
        self.single_lane, self.keys = single_lane, keys or Keys()
        self.draining = self.leaving = False
        self.metrics = Metrics(self.runs)
        self.worker = Worker([single_lane])
        for run in runs:
            self.add(run)

    @classmethod
    def open(
        cls,
        folders: Sequence[Path],
        keys: Keys | None = None,
        weights: Weights = "full",
        team: Team | None = None,
        **limits: int,
    ) -> Service:
        """Open run folders. A model is named after its folder (and parent, if ambiguous). Raises SanbuError.

        team: processes that compute the models together.
        """
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
                HostedRun.open(folder, name, single_lane, weights, team, **limits)
                for folder, name in zip(folders, full, strict=True)
            ],
            single_lane,
            keys,
        )

    def add(self, run: HostedRun) -> None:
        """Serve one more run, also while others are served."""
        if run.engine is not None:
            self.worker.add(run.engine)
        self.runs[run.name] = run

    def open_finished(self) -> None:
        """Serve the expected runs that are finished."""
        with self.opening:
            for one in self.missing():
                if (one.folder / "finished.json").exists():
                    self.open_one(one)

    def open_one(self, one: Expected) -> None:
        """Serve an expected run; one that cannot be served is not expected any more."""
        try:
            self.add(HostedRun.open(one.folder, one.name, self.single_lane))
        except SanbuError as error:
            del self.expected[one.name]
            log.error("%s is not served: %s", one.name, error)

    def missing(self) -> list[Expected]:
        """The expected runs that are not served yet."""
        return [one for one in list(self.expected.values()) if one.name not in self.runs]

    def names(self, writes: bool) -> list[str]:
        """Names of the runs that write text, or of those that draw pictures: expected ones first, in their order."""
        found = {one.name: one.writes for one in list(self.expected.values())}
        shown = [one for one in list(self.runs.values()) if one.writes or one.medium == "image"]
        found |= {one.name: one.writes for one in shown}
        return [name for name, does in found.items() if does == writes]

    def sounding(self, ability: str) -> list[str]:
        """Names of the runs whose codec has `voices`, which speak, or `sound`, which recognise speech."""
        return [one.name for one in list(self.runs.values()) if hasattr(one.run.codec, ability)]

    def find(self, name: str) -> HostedRun:
        """A served run. Raises APIError: 404 with the nearest name, 503 if it is not trained yet."""
        run = self.runs.get(name)
        if run is not None:
            return run
        if name in self.expected:
            state = self.expected[name].state()
            raise APIError(503, f"{name} is not ready: {state}", "model", "model_not_ready")
        near = nearest(name, self.runs)
        raise APIError(
            404, f"no model {name[:80]!r}; available: {', '.join(self.runs)}{near}", "model", "model_not_found"
        )

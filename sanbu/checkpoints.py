"""A run folder as it is written: the recipe, metrics, checkpoints, weights. Everything appears whole or not at all.

Nothing is ever unpickled: tensors are safetensors, the rest is JSON. `run.py` reads the same folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor, nn

from sanbu.config import Config, SanbuError, dump
from sanbu.files import (
    FileError,
    pack,
    read_json,
    read_tensors,
    replace_atomically,
    unpack,
    weights,
    write_json,
    write_tensors,
)

FORMAT = 1  # of recipe.json and of checkpoints


class RunError(SanbuError):
    """A run folder that cannot be used as asked."""


class Writer:
    """Writes one run folder. Attributes of the folder are read where they are needed, never kept."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def create(cls, folder: Path | str, recipe: Config) -> Writer:
        """Begin a new run. Raises RunError when the folder already holds something."""
        folder = Path(folder)
        leftovers = ("run.lock", "checkpoints", "samples")  # what a run that was killed at once may have left
        if folder.exists() and (not folder.is_dir() or any(file.name not in leftovers for file in folder.iterdir())):
            hint = "; add --resume to continue it" if (folder / "recipe.json").exists() else ""
            raise RunError(f"{folder} is not empty{hint}")
        for name in ("checkpoints", "samples"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        about = {"format": FORMAT, "sanbu": version("sanbu"), "recipe": dump(recipe)}
        write_json(folder / "recipe.json", about)
        return cls(folder)

    def lock(self) -> FileLock:
        """Lock the folder for one writer. Raises RunError if another process holds it."""
        lock = FileLock(self.folder / "run.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.folder} is in use by another process") from None
        return lock

    # -- metrics ------------------------------------------------------------------------------------------------------

    def record(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def cut_metrics(self, size: int) -> None:
        """Truncate metrics.jsonl to its size at a checkpoint."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            os.truncate(path, min(size, path.stat().st_size))

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def save_checkpoint(self, name: str, state: dict[str, Any], about: dict[str, Any]) -> Path:
        """Write a checkpoint folder atomically: a tree of tensors and numbers, and facts about it."""
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            with metrics.open("rb") as file:
                os.fsync(file.fileno())
        about = {"format": FORMAT, "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0, **about}
        path = self.folder / "checkpoints" / name
        if path.exists():
            shutil.rmtree(path)
        with replace_atomically(path) as temporary:
            temporary.mkdir()
            tensors: dict[str, Tensor] = {}
            tree = pack(state, tensors)
            write_tensors(temporary / "state.safetensors", tensors)
            (temporary / "state.json").write_text(json.dumps({**about, "state": tree}), encoding="utf-8")
        return path

    def load_checkpoint(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state and the facts about it. Raises RunError if the checkpoint is damaged, and says how to continue."""
        try:
            about = read_json(path / "state.json")
            tensors = read_tensors(path / "state.safetensors")
        except FileError as error:
            raise RunError(f"{error}; delete {path} to resume from {self._before(path)}") from None
        if about["format"] != FORMAT:
            raise RunError(f"{path} was written in format {about['format']}; this version reads format {FORMAT}")
        return unpack(about.pop("state"), tensors), about

    def _before(self, path: Path) -> str:
        older = [other for other in self.checkpoints() if other < path]
        return older[-1].name if older else "the start"

    def prune(self, keep: int, best: str | None) -> None:
        """Delete what interrupted writes left, and all checkpoints but the latest `keep` and the best."""
        for path in self.checkpoints()[:-keep]:
            if path.name != best:
                shutil.rmtree(path)
        for remains in (self.folder / "checkpoints").glob(".*.tmp"):
            shutil.rmtree(remains, ignore_errors=True)

    # -- weights ------------------------------------------------------------------------------------------------------

    def save_average(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Save a snapshot of the averages of this step; snapshots are never deleted."""
        if tensors and step:
            (self.folder / "averages").mkdir(exist_ok=True)
            with replace_atomically(self.folder / "averages" / f"step-{step:08d}.safetensors") as temporary:
                kept = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
                write_tensors(temporary, kept)

    def save_model(self, model: nn.Module) -> None:
        """Write model.safetensors atomically."""
        with replace_atomically(self.folder / "model.safetensors") as temporary:
            write_tensors(temporary, weights(model))

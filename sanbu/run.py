"""A run: a folder that explains itself.

    recipe.json          the resolved recipe, the version that wrote it
    model.safetensors    the weights one samples from (the average, where the recipe keeps one)
    metrics.jsonl        a line a step; names that begin with time/ are timings, the rest is deterministic
    checkpoints/         step-00000100/ holds everything that training needs to go on bit for bit
    samples/             what was drawn on the way
    averages/            averages of the weights at each checkpoint, where the recipe keeps a power-function one

Everything is written whole or not at all; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from sanbu import __version__
from sanbu.config import ConfigError, SanbuError, dump, load, override
from sanbu.data.kinds import Codec
from sanbu.files import (
    FileError,
    load_weights,
    pack,
    read_json,
    read_tensors,
    replacing,
    unpack,
    weights,
    write_json,
    write_tensors,
)
from sanbu.machine import find_device, ready_to_draw
from sanbu.recipe import Recipe
from sanbu.strategies.strategy import Batch, Draft, generate

FORMAT = 1


class RunError(SanbuError):
    """A run folder that cannot be used as asked."""


class Run:
    """One run folder. Attributes read what is on disk when they are first asked for."""

    def __init__(self, folder: Path | str, recipe: Recipe) -> None:
        self.folder, self.recipe = Path(folder), recipe
        self.device = torch.device("cpu")

    # -- the folder ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path | str, recipe: Recipe) -> Run:
        """A new run. Raises RunError when the folder already holds something."""
        folder = Path(folder)
        made = ("run.lock", "checkpoints", "samples")  # what a run that was killed at once may have left
        if folder.exists() and (not folder.is_dir() or any(file.name not in made for file in folder.iterdir())):
            hint = "; add --resume to go on with it" if (folder / "recipe.json").exists() else ""
            raise RunError(f"{folder} is not empty{hint}")
        for name in ("checkpoints", "samples"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / "recipe.json", {"format": FORMAT, "sanbu": __version__, "recipe": dump(recipe)})
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """An existing run. Raises RunError when it is none, or was written in another format."""
        folder = Path(folder)
        if not (folder / "recipe.json").is_file():
            raise RunError(f"{folder} is no run: it has no recipe.json")
        content = read_json(folder / "recipe.json")
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            other = content.get("sanbu", "unknown") if isinstance(content, dict) else "unknown"
            raise RunError(
                f"{folder} was written by version {other} in another format than {FORMAT}; this is version {__version__}"
            )
        try:
            return cls(folder, load(Recipe, content["recipe"]))
        except ConfigError as error:
            raise RunError(f"{folder}/recipe.json: {error}") from None

    def lock(self) -> FileLock:
        """Hold the folder for one writer. Raises RunError when another process has it."""
        lock = FileLock(self.folder / "run.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.folder} is in use by another process") from None
        return lock

    # -- what was learnt ----------------------------------------------------------------------------------------------

    @cached_property
    def codec(self) -> Codec:
        """Between people and tensors, as this run saw them."""
        return self.recipe.data.codec(self.folder)

    @cached_property
    def model(self) -> nn.Module:
        """The function that was found, ready to be called, in evaluation mode."""
        path = self.folder / "model.safetensors"
        if not path.exists():
            raise RunError(f"{self.folder} has no weights yet: train it first")
        model = self.recipe.model.build(self.recipe.data.space()).eval().requires_grad_(False)
        load_weights(model, read_tensors(path), path)
        return ready_to_draw(model)

    @cached_property
    def models(self) -> dict[str, nn.Module]:
        """The model and its parents, as a strategy wants them."""
        return {"model": self.model, **{name: self.parent(name).model for name in self.recipe.parents if name != "model"}}

    def parent(self, name: str) -> Run:
        """A parent run: where the recipe says, or beside this one, so that runs can be moved together."""
        path = Path(self.recipe.parents[name])
        beside = self.folder.parent / path.name
        return Run.open(path if (path / "recipe.json").exists() or not beside.exists() else beside)

    def to(self, device: str) -> Run:
        """Draw on another device from now on; `auto` is the best there is."""
        self.device = find_device(device)
        for model in self.models.values():
            model.to(self.device)
        return self

    def drafts(
        self, prompt: Any = None, n: int = 1, seed: int = 0, overrides: tuple[str, ...] = (), watch: Any = None
    ) -> Iterator[Draft]:
        """Draw n samples for each prompt, yielding every draft; see `generate`."""
        yield from self.drawn(self.codec.condition(prompt, n), seed, overrides, watch)

    def drawn(self, condition: Batch, seed: int = 0, overrides: tuple[str, ...] = (), watch: Any = None) -> Iterator[Draft]:
        """Draw a sample for each row of a condition, yielding every draft. Overrides may name further parents, a guide say."""
        recipe = override(self.recipe, overrides)
        condition = {name: tensor.to(self.device) for name, tensor in condition.items()}
        rows = next(iter(condition.values())).shape[0]
        seeds = torch.arange(seed, seed + rows, device=self.device)
        more = {name: path for name, path in recipe.parents.items() if path != self.recipe.parents.get(name)}
        models = self.models | {name: Run.open(path).model.to(self.device) for name, path in more.items()}
        yield from generate(recipe.strategy.build(recipe.data.space()), models, condition, seeds, watch)

    def generate(self, prompt: Any = None, n: int | None = None, seed: int = 0, overrides: tuple[str, ...] = ()) -> Any:
        """What follows the prompt: one sample, or a list of n. Sample i is drawn with seed + i, alone or together.

        overrides: changes such as ``strategy.temperature=0.7``. Raises ConfigError for an unknown one.
        """
        follower = self.follow(overrides)
        for _ in self.drafts(prompt, n or 1, seed, overrides, follower.update):
            pass
        results = follower.results()
        return results if n is not None or isinstance(prompt, (list, tuple)) else results[0]

    def follow(self, overrides: tuple[str, ...] = ()) -> Any:
        """A reader of drafts that turns them into what a person reads, and ends rows at the strategy's stop texts."""
        return self.codec.follow(override(self.recipe, overrides).strategy)

    # -- metrics ------------------------------------------------------------------------------------------------------

    def record(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl; a line cut short by a crash is left out."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def save_checkpoint(self, name: str, state: dict[str, Any], about: dict[str, Any]) -> Path:
        """Write a checkpoint folder at once: a tree of tensors and numbers, and what is to be known about it."""
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            with metrics.open("rb") as file:
                os.fsync(file.fileno())
        about = {"format": FORMAT, "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0, **about}
        path = self.folder / "checkpoints" / name
        if path.exists():
            shutil.rmtree(path)
        with replacing(path) as temporary:
            temporary.mkdir()
            tensors: dict[str, Tensor] = {}
            tree = pack(state, tensors)
            write_tensors(temporary / "state.safetensors", tensors)
            (temporary / "state.json").write_text(json.dumps({**about, "state": tree}), encoding="utf-8")
        return path

    def load_checkpoint(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state and what is known about it. Raises RunError, naming a way on, when the checkpoint is damaged."""
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
        return f"{older[-1].name}" if older else "the start"

    def cut_metrics(self, size: int) -> None:
        """Forget what was recorded after a checkpoint."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            os.truncate(path, min(size, path.stat().st_size))

    def prune(self, keep: int, best: str | None) -> None:
        """Delete old checkpoints: the latest `keep` and the best stay, and remains of broken writes go."""
        paths = self.checkpoints()
        for path in paths[:-keep]:
            if path.name != best:
                shutil.rmtree(path)
        for remains in (self.folder / "checkpoints").glob(".*.tmp"):
            shutil.rmtree(remains, ignore_errors=True)

    def save_average(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep averages of this step beside the checkpoints, never pruned."""
        if tensors and step:
            (self.folder / "averages").mkdir(exist_ok=True)
            with replacing(self.folder / "averages" / f"step-{step:08d}.safetensors") as temporary:
                write_tensors(temporary, {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})

    def save_model(self, model: nn.Module) -> None:
        """Write model.safetensors at once."""
        with replacing(self.folder / "model.safetensors") as temporary:
            write_tensors(temporary, weights(model))

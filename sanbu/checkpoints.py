"""A run folder as it is written: the recipe, metrics, checkpoints, weights, each atomically and with its hash.

A run is what its latest checkpoint says: `model.safetensors` and the average of that step are written after it, and
written again on resuming if they are missing or of another step. `finished.json` is written last of all.
Nothing is ever unpickled: tensors are safetensors, the rest is JSON. `run.py` reads the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from torch import Tensor, nn

from sanbu.config import SanbuError, dump
from sanbu.files import (
    FileError,
    check_seal,
    facts_of,
    file_hash,
    fsync,
    pack,
    read_object,
    read_tensors,
    remove,
    replace_atomically,
    seal,
    unpack,
    weights,
    write_json,
    write_tensors,
)

if TYPE_CHECKING:
    from sanbu.config import Config

Read = Callable[[Path, dict[str, Any]], Mapping[str, Any]]

FORMAT = 2  # of recipe.json and of checkpoints
PIPELINE = "pipeline.json"  # in the folder of a pipeline: the stages that may stand for it, in order; what was given
FORMATS = (1, 2)  # that can be read; format 1 has no hashes


class RunError(SanbuError):
    """A run folder that cannot be used as asked."""


class Writer:
    """Writes one run folder."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.metrics = hashlib.sha256()  # of metrics.jsonl so far
        self.metrics_bytes = 0

    @classmethod
    def create(cls, folder: Path | str, recipe: Config, save: Callable[[Path], object], data: str = "") -> Writer:
        """Begin a new run. save: writes the files of its codec. recipe.json, written last, makes the folder a run.

        data: the fingerprint of the data, where the run begins with data.
        """
        folder = Path(folder)
        check_new(folder)
        for name in ("checkpoints", "samples"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        save(folder)
        files = {path.name: file_hash(path) for path in sorted(folder.iterdir()) if is_own(path)}
        values = dump(recipe)
        parents = {name: model_hash(Path(path)) for name, path in values["parents"].items()}
        values["parents"] = {name: os.path.relpath(path, folder) for name, path in values["parents"].items()}
        about = {"format": FORMAT, "sanbu": version("sanbu"), "files": files, "parents": parents, "recipe": values}
        about |= {"data": data} if data else {}
        write_json(folder / "recipe.json", seal(about))
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
        line = (json.dumps(row) + "\n").encode()
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("ab") as file:
                file.write(line)
        except OSError as error:
            raise FileError(f"cannot write {path}: {error.strerror}") from None
        self.metrics.update(line)
        self.metrics_bytes += len(line)

    def restore_metrics(self, size: int, expected: str | None) -> None:
        """Truncate metrics.jsonl to its size at a checkpoint. Raises RunError if it is not what it was then."""
        path = self.folder / "metrics.jsonl"
        content = path.read_bytes()[:size] if path.exists() else b""
        self.metrics, self.metrics_bytes = hashlib.sha256(content), len(content)
        if len(content) < size or (expected is not None and self.metrics.hexdigest() != expected):
            raise RunError(f"{path} is damaged: it does not begin with what the latest checkpoint recorded")
        if path.exists():
            os.truncate(path, size)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def regular(self, every: int) -> str | None:
        """The latest checkpoint on the schedule; those that an interrupt has caused are not on it."""
        for path in reversed(self.checkpoints()):
            step = path.name.removeprefix("step-")
            if step.isdigit() and (int(step) == 0 or (every and int(step) % every == 0)):
                return path.name
        return None

    def remove_after(self, name: str) -> None:
        """Delete the checkpoints that are later than one of them."""
        for path in self.checkpoints():
            if path.name > name:
                remove(path)

    def save_checkpoint(self, name: str, state: dict[str, Any], about: dict[str, Any]) -> Path:
        """Write a checkpoint folder atomically: a tree of tensors and numbers, and facts about it."""
        self.flush_metrics()
        path = self.folder / "checkpoints" / name
        remove(path)
        with replace_atomically(path) as temporary:
            temporary.mkdir()
            tensors: dict[str, Tensor] = {}
            tree = pack(state, tensors)
            write_tensors(temporary / "state.safetensors", tensors, {"checkpoint": name})
            content = json.dumps(seal({**self.facts(), **about, "state": tree}))
            (temporary / "state.json").write_text(content, encoding="utf-8")
        return path

    def flush_metrics(self) -> None:
        """Flush metrics.jsonl to the disk, before a checkpoint records its hash."""
        if (self.folder / "metrics.jsonl").exists():
            fsync(self.folder / "metrics.jsonl")

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of the run so far."""
        return {"format": FORMAT, "metrics_bytes": self.metrics_bytes, "metrics": self.metrics.hexdigest()}

    def load_checkpoint(self, path: Path, read: Read | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state and the facts about it. Raises RunError if the checkpoint is damaged, and says how to continue.

        read: the tensors of a checkpoint by name, from its folder and its facts; by default all of them, whole.
        """
        try:
            about = read_object(path / "state.json", "format", "metrics_bytes", "state")
            if about["format"] not in FORMATS:
                raise RunError(f"{path} was written in format {about['format']}; this version reads 1 to {FORMAT}")
            if about["format"] > 1:
                check_seal(path / "state.json", about)
            tensors = (read or read_whole)(path, about)
        except FileError as error:
            raise RunError(f"{error}; delete {path} to resume from {self._before(path)}") from None
        return unpack(about.pop("state"), tensors), about

    def _before(self, path: Path) -> str:
        older = [other for other in self.checkpoints() if other < path]
        return older[-1].name if older else "the start"

    def prune(self, keep: int, *others: str | None) -> None:
        """Delete all checkpoints but the latest `keep`, and others by name."""
        for path in self.checkpoints()[:-keep]:
            if path.name not in others:
                remove(path)

    def clean(self) -> None:
        """Delete what interrupted writes left. Call it only while the folder is locked."""
        for remains in (*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")):
            shutil.rmtree(remains) if remains.is_dir() else remains.unlink()

    # -- weights ------------------------------------------------------------------------------------------------------

    def save_average(self, name: str, step: int, tensors: dict[str, Tensor]) -> None:
        """Save a snapshot of the averages at a checkpoint, unless it is there; snapshots are never deleted."""
        path = self.folder / "averages" / f"step-{step:08d}.safetensors"
        if tensors and step and not belongs(path, name):
            path.parent.mkdir(exist_ok=True)
            kept = {key: tensor.detach().clone() for key, tensor in tensors.items()}
            with replace_atomically(path) as temporary:
                write_tensors(temporary, kept, {"checkpoint": name})

    def save_model(self, model: nn.Module, name: str = "") -> None:
        """Write model.safetensors atomically, unless it is that of the checkpoint `name` already."""
        if not (name and self.has_model(name)):
            self.save_weights(weights(model), name)

    def has_model(self, name: str) -> bool:
        """Whether model.safetensors is that of a checkpoint."""
        return belongs(self.folder / "model.safetensors", name)

    def save_weights(self, tensors: dict[str, Tensor], name: str) -> None:
        """Write model.safetensors atomically."""
        with replace_atomically(self.folder / "model.safetensors") as temporary:
            write_tensors(temporary, tensors, {"checkpoint": name})

    def reopen(self) -> None:
        """Take back the mark of a finished run whose latest checkpoints or model were deleted."""
        (self.folder / "finished.json").unlink(missing_ok=True)

    def finish(self, latest: str) -> None:
        """Mark the run as finished with its latest checkpoint, and note the hashes of all that it ended with."""
        files = [self.folder / "model.safetensors", *sorted((self.folder / "averages").glob("*.safetensors"))]
        weights = {path.relative_to(self.folder).as_posix(): facts_of(path)["sha256"] for path in files}
        about = {"checkpoint": latest, "metrics": self.metrics.hexdigest(), "weights": weights}
        write_json(self.folder / "finished.json", seal(about))


def read_whole(path: Path, about: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint; those that several ranks wrote, put together."""
    import torch

    parts = [read_file(path, about, number) for number in range(len(files_of(path, about)))]
    if "ranks" not in about:
        return parts[0]
    found = {}
    for name, entry in about["tensors"].items():
        if len(entry["pieces"]) == 1:
            found[name] = parts[entry["pieces"][0][0]][name]
            continue
        found[name] = torch.empty(entry["shape"], dtype=getattr(torch, entry["type"]))
        for rank, offset, shape in entry["pieces"]:
            place = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
            found[name][place] = parts[rank][name]
    return found


def files_of(path: Path, about: dict[str, Any]) -> list[Path]:
    """The files with the tensors of a checkpoint."""
    if "ranks" not in about:
        return [path / "state.safetensors"]
    return [path / f"rank-{rank:05d}.safetensors" for rank in range(len(about["ranks"]))]


def read_file(path: Path, about: dict[str, Any], number: int) -> dict[str, Tensor]:
    """The tensors of one of these files. Raises FileError if it does not match its hashes."""
    file = files_of(path, about)[number]
    tensors = read_tensors(file, sealed=about["format"] > 1)
    check_header(file, about, number)
    return tensors


def check_header(file: Path, about: dict[str, Any], number: int) -> None:
    """Raise FileError if the hash in one of these files is not that in state.json."""
    found = facts_of(file).get("sha256")
    if "ranks" in about and found != about["ranks"][number]:
        raise FileError(f"{file} is damaged: it does not match its hash in state.json")


def check_new(folder: Path) -> None:
    """Raise RunError if a run cannot begin in this folder, because it already holds something."""
    if not folder.exists() or (folder.is_dir() and (folder / "run.lock").exists() and not is_run(folder)):
        return  # a folder with a lock and no recipe is what a run that was killed at once leaves
    if not folder.is_dir() or any(folder.iterdir()):
        hint = "; add --resume to continue it" if is_run(folder) else ""
        raise RunError(f"{folder} is not empty{hint}")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: it has a recipe.json."""
    return (folder / "recipe.json").is_file()


def standing(folder: Path) -> Path:
    """The run that a folder stands for: itself, or of a pipeline the last stage that has weights."""
    path = folder / PIPELINE
    if is_run(folder) or not path.is_file():
        return folder
    stages = [folder / name for name in read_object(path, "stages")["stages"]]
    trained = [stage for stage in stages if is_run(stage) and (stage / "model.safetensors").exists()]
    return trained[-1] if trained else folder


def is_own(path: Path) -> bool:
    """Whether a file of a new run is part of it: not the lock, nor a temporary file."""
    return path.is_file() and path.name not in ("run.lock", "recipe.json") and not path.name.endswith(".tmp")


def intact(path: Path) -> bool:
    """Whether a file of tensors is there and matches its hash."""
    try:
        read_tensors(path, sealed=True)
    except FileError:
        return False
    return True


def belongs(path: Path, checkpoint: str) -> bool:
    """Whether a file of tensors is intact and was written with that checkpoint."""
    try:
        return facts_of(path).get("checkpoint") == checkpoint and intact(path)
    except FileError:
        return False


def weights_hash(path: Path) -> str:
    """The hash that was saved with weights, to notice that they were trained again; empty where there is none."""
    return facts_of(path).get("sha256", "") if path.exists() else ""


def model_hash(folder: Path) -> str:
    """The hash of the model of a run."""
    return weights_hash(folder / "model.safetensors")

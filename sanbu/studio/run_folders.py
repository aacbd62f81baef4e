"""Run folders as the page sees them: their names, whether one can be read, how far it is, its parents and samples."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sanbu.config import SanbuError
from sanbu.display.ranks import cells, late_lines, listed
from sanbu.parallel import pace
from sanbu.recipe import walk
from sanbu.run import Run
from sanbu.studio.metrics import Metrics, Readers, number
from sanbu.studio.translations import Language, translate

DEPTH, SHOWN, FAMILY = 3, 12, 8  # folders below the root; samples of each kind; generations of parents
QUIET = 60  # seconds without a new row after which a run counts as stopped, where locks cannot be seen
FILES = ("finished.json", "recipe.json", "metrics.jsonl", pace.NAME, "samples")
LOCKS = Path("/proc/locks")
NO_METRICS = Metrics()
State = Literal["finished", "running", "stopped"]
Picture = tuple[np.ndarray, str]

_readers = Readers()


@dataclass(frozen=True)
class Opened:
    """A run folder: the run, or the reason why it cannot be read; and its metrics."""

    name: str
    folder: Path
    run: Run | None
    metrics: Metrics = NO_METRICS
    error: str = ""
    recipe_time: int = 0  # when recipe.json was written, in nanoseconds


# -- which there are --------------------------------------------------------------------------------------------------


def find_runs(root: Path) -> list[str]:
    """Names of the run folders below a folder, newest first. One that is deleted meanwhile is left out."""
    dated = sorted(below(root, DEPTH), key=lambda found: (-found[0], found[1]))
    return [folder.relative_to(root).as_posix() for _, folder in dated]


def below(folder: Path, depth: int) -> Iterator[tuple[float, Path]]:
    """The run folders below a folder, with the time of their recipe; runs within runs are not looked for."""
    entries: list[Path] = []
    with contextlib.suppress(OSError):
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    for entry in entries:
        try:
            yield (entry / "recipe.json").stat().st_mtime, entry
        except OSError:
            if depth > 1:
                yield from below(entry, depth - 1)


def open_run(root: Path, name: str | None) -> Run | None:
    """A run by its name on the page; None for any other name, and for a run that cannot be read."""
    try:
        return Run.open(root / name) if name and opened(root, name) else None
    except SanbuError:
        return None


def opened(root: Path, name: str | None) -> Opened | None:
    """A run by its name on the page, readable or not; None if there is none of that name."""
    if not name:
        return None
    folder = root / name
    if ".." in Path(name).parts or not folder.resolve().is_relative_to(root.resolve()):
        return None
    try:
        facts = (folder / "recipe.json").stat()
    except OSError:
        return None
    run, error = read(folder, facts.st_mtime_ns, facts.st_size)
    metrics = NO_METRICS
    try:
        metrics = _readers.read(folder / "metrics.jsonl")
    except OSError as problem:
        error = error or f"{folder / 'metrics.jsonl'}: {problem.strerror}"
    return Opened(name, folder, run, metrics, error, facts.st_mtime_ns)


@lru_cache(64)
def read(folder: Path, changed: int, size: int) -> tuple[Run | None, str]:
    """A run, or why it cannot be read; read again when recipe.json has changed."""
    try:
        return Run.open(folder), ""
    except (SanbuError, OSError, ValueError, RecursionError) as error:
        return None, str(error)


def state_of_all(root: Path) -> list[tuple[Any, ...]]:
    """What changes when a run below a folder does: its files that the page shows, and whether a process trains it."""
    found: list[tuple[Any, ...]] = []
    for name in find_runs(root):
        times = tuple(written_at(root / name / file) for file in FILES)
        found.append((name, times, times[0] == 0 and in_training(root / name)))
    return found


def written_at(path: Path) -> int:
    """When a file, or the list of files of a folder, was changed, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


# -- how far one is ---------------------------------------------------------------------------------------------------


def state_of(found: Opened) -> State:
    """Whether training has ended, goes on, or was stopped before its end."""
    if (found.folder / "finished.json").exists():
        return "finished"
    return "running" if in_training(found.folder) else "stopped"


def in_training(folder: Path) -> bool:
    """Whether a process trains into a folder: it holds the lock, or wrote lately where locks cannot be seen."""
    try:
        lock = (folder / "run.lock").stat().st_ino
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return written_lately(folder)
    places = [part for line in lines for part in line.split() if part.count(":") == 2]
    return str(lock) in [place.rpartition(":")[2] for place in places]


def stopped_runs(root: Path) -> list[str]:
    """Names of the runs that can be resumed, newest first: they have a checkpoint, steps left, and no process."""
    return [name for name in find_runs(root) if resumable(root / name)]


def resumable(folder: Path) -> bool:
    """Whether a run was stopped before its last step."""
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))
    if not checkpoints or (folder / "finished.json").exists():
        return False
    facts = (folder / "recipe.json").stat()
    run, _ = read(folder, facts.st_mtime_ns, facts.st_size)
    done = checkpoints[-1].name.split("-")[1]
    left = run is not None and done.isdigit() and int(done) < run.recipe.schedule.steps
    return left and not in_training(folder)


def written_lately(folder: Path) -> bool:
    """Whether a row was written within the last minute."""
    try:
        return time.time() - (folder / "metrics.jsonl").stat().st_mtime < QUIET
    except OSError:
        return False


def progress_text(found: Opened | None, language: Language = "en", state: State | None = None) -> str:
    """The step of the total, whether the run was stopped there, the latest metrics, and what cannot be read.

    state: where it is known; else it is read from the folder.
    """
    if found is None:
        return ""
    if found.run is None:
        return translate("damaged_run", language).format(name=found.name, error=found.error)
    state, metrics = state or state_of(found), found.metrics
    lines = [found.error] if found.error else []
    if metrics.rows:
        steps = found.run.recipe.schedule.steps
        word = "stopped_at" if state == "stopped" and metrics.step < steps else "step_of"
        place = translate(word, language).format(step=f"{metrics.step:,}", steps=f"{steps:,}")
        lines.insert(0, f"{place}: {latest(metrics)}")
    elif not found.error:
        lines.append(translate("begins" if state == "running" else "no_metrics", language))
    lines += late_lines(ranks_now(found), translate("late_rank", language))
    torn = [*metrics.torn, *([metrics.cut] if metrics.cut and state != "running" else [])]
    if torn:
        numbers = ", ".join(map(str, torn[:5])) + (", ..." if len(torn) > 5 else "")
        lines.append(translate("torn_metrics", language).format(file=found.folder / "metrics.jsonl", lines=numbers))
    return "\n".join(lines)


def latest(metrics: Metrics) -> str:
    """The latest value of each metric."""
    pairs = [pair for row in metrics.rows[-50:] for pair in row.items()]
    last = {key: value for key, value in pairs if isinstance(value, float) and not key.startswith("time/")}
    return ", ".join(f"{key} {value:.4g}" for key, value in last.items())


def seconds_left(found: Opened, steps: int) -> float | None:
    """About how long the steps that are left take; None before the first."""
    done, spent = found.metrics.step, found.metrics.seconds
    return spent / done * max(0, steps - done) if done and number(spent) is not None else None


def ranks_now(found: Opened) -> list[pace.Rank]:
    """The ranks of a run in many processes, read again when their file has changed. Empty for a run of one."""
    try:
        facts = (found.folder / pace.NAME).stat()
    except OSError:
        return []
    return read_ranks(found.folder, facts.st_mtime_ns, facts.st_size)


@lru_cache(64)
def read_ranks(folder: Path, changed: int, size: int) -> list[pace.Rank]:
    """See `ranks_now`."""
    return pace.ranks_of(folder)


def rank_rows(found: Opened | None) -> tuple[tuple[str, ...], ...]:
    """The ranks of a run in many processes: speed, waiting, MFU and memory. Empty for a run of one."""
    ranks = ranks_now(found) if found else []
    return tuple(tuple(cells(number, ranks[number])) for number in listed(ranks))


# -- what it is made of -----------------------------------------------------------------------------------------------


def parents_text(found: Opened | None) -> str:
    """The parent runs of a run, and their parents, one per line; ? for one that cannot be read."""

    def lines(run: Run, depth: int) -> Iterator[str]:
        for role, path in run.recipe.parents.items() if depth < FAMILY else ():
            yield "  " * depth + f"{role}: {Path(path).name}"
            try:
                yield from lines(run.parent(role), depth + 1)
            except (SanbuError, OSError):
                yield "  " * (depth + 1) + "?"

    return "\n".join(lines(found.run, 0)) if found and found.run else ""


def recipe_text(found: Opened | None) -> str:
    """The recipe of a run, one field per line; of one that cannot be read, why."""
    if found is None or found.run is None:
        return found.error if found else ""
    return "\n".join(f"{path}={value}" for path, value, _, _ in walk(found.run.recipe))


def sample_files(found: Opened | None) -> tuple[Path, ...]:
    """Files of samples drawn during training, newest first."""
    files = sorted((found.folder / "samples").glob("*"), reverse=True)[: 2 * SHOWN] if found else []
    return tuple(file for file in files if file.suffix in (".png", ".txt"))


def samples(files: tuple[Path, ...]) -> tuple[list[Picture], str]:
    """Samples drawn during training: images with their step, and texts. A file that cannot be read is named."""
    pictures: list[Picture] = []
    texts: list[str] = []
    for file in files:
        try:
            if file.suffix == ".png":
                pictures.append((np.asarray(Image.open(file)), file.stem))
            else:
                texts.append(f"{file.stem}\n{file.read_text(encoding='utf-8', errors='replace')[:2000]}")
        except (OSError, ValueError, SyntaxError) as error:
            texts.append(f"{file.stem}\n{file.name}: {error}")
    return pictures[:SHOWN], "\n\n".join(texts[:SHOWN])

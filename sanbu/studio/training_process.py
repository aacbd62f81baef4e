"""The training that was started from the page: a process of its own, which goes on when the page or the server ends."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sanbu import recipes
from sanbu.checkpoints import RunError, check_new
from sanbu.config import SanbuError
from sanbu.studio.messages import Message
from sanbu.studio.run_folders import Opened, opened, progress_text, seconds_left, state_of
from sanbu.studio.translations import Language, translate

LOG = "studio.log"


@dataclass(frozen=True)
class Training:
    """One training: its run by name, its steps, and the words after `sanbu`."""

    name: str
    steps: int
    arguments: tuple[str, ...]

    @property
    def resuming(self) -> tuple[str, ...]:
        """The words that resume it later."""
        place = self.arguments.index("--run")
        return ("train", self.arguments[1], *self.arguments[place : place + 2], "--resume")


class TrainingProcess:
    """The training process started from this page; one at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process: subprocess.Popen[bytes] | None = None
        self.training: Training | None = None
        self.asked_to_stop = False
        self.done = 0  # steps before this process
        self.lock = threading.Lock()

    def start(self, name: str, changes: Sequence[str], folder: str, steps: int) -> None:
        """Start training. Raises Message while another one runs, and for a folder that is taken or outside the root."""
        place = new_place(self.root, folder)
        self.begin(Training(name_of(self.root, place), steps, train_words(name, changes, place)))

    def resume(self, name: str | None) -> None:
        """Continue a stopped run from its latest checkpoint. Raises Message for a run that is not stopped."""
        if not name:
            raise Message("nothing_to_resume")
        found = opened(self.root, name)
        state = state_of(found) if found else "gone"
        if found is None or state != "stopped":
            raise Message("not_stopped", name=name, state=Message(f"state_{state}"))
        if found.run is None:
            raise Message("damaged_run", name=name, error=found.error)
        self.begin(Training(name, found.run.recipe.schedule.steps, resume_words(found)))

    def begin(self, training: Training) -> None:
        """Start the process. Raises Message while another one runs."""
        with self.lock:
            if self.training is not None and self.running():
                raise Message("still_training", name=self.training.name)
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / LOG).open("wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "sanbu", *training.arguments],
                    stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            self.training, self.asked_to_stop = training, False
            found = opened(self.root, training.name)
            self.done = found.metrics.step if found else 0

    def running(self) -> bool:
        """Whether the process is still running."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Save a checkpoint and stop, as Ctrl-C does. Raises Message if no training runs."""
        if self.process is None or not self.running():
            raise Message("nothing_runs")
        self.asked_to_stop = True
        self.process.send_signal(signal.SIGINT)

    def status(self, language: Language = "en") -> tuple[str, float]:
        """A status line, and the fraction of steps done."""
        training, process = self.training, self.process
        if process is None or training is None:
            return translate("idle", language), 0.0
        code = process.poll()
        found = opened(self.root, training.name)
        done = found.metrics.step if found else 0
        part = min(1.0, done / max(1, training.steps))
        if code is None:
            return self.going(training, found, language), part
        if found is not None and state_of(found) == "finished":
            place = progress_text(found, language)
            return translate("training_done", language).format(name=training.name, place=place), 1.0
        return self.ended(training, found, code, language), part

    def going(self, training: Training, found: Opened | None, language: Language) -> str:
        """How far a process is that runs."""
        if self.asked_to_stop:
            return translate("stopping", language).format(name=training.name)
        if found is None or found.metrics.step <= self.done:
            return f"{training.name}: {translate('starting', language)}"
        left = seconds_left(found, training.steps)
        rest = translate("about_left", language).format(left=left) if left is not None else ""
        place = progress_text(found, language, "running")
        return f"{training.name}: {place}{rest}"

    def ended(self, training: Training, found: Opened | None, code: int, language: Language) -> str:
        """Where and why a process ended before its last step."""
        reason = last_line(self.root / LOG)
        if found is None and not self.asked_to_stop:
            return translate("not_begun", language).format(name=training.name, reason=reason or code)
        word = "failed_at" if code > 0 else "killed_at" if code < 0 else "training_stopped"
        return translate("training_stopped" if self.asked_to_stop else word, language).format(
            name=training.name,
            step=f"{found.metrics.step if found else 0:,}",
            steps=f"{training.steps:,}",
            code=abs(code),
            reason=reason,
            command=command_line(training.resuming),
        )


def new_place(root: Path, folder: str) -> Path:
    """The folder of a new run below the root. Raises Message for one that is outside, or holds something."""
    place = (root / folder).resolve()
    if not folder.strip() or not place.is_relative_to(root.resolve()) or place == root.resolve():
        raise Message("outside", folder=folder, root=root)
    if (place / "recipe.json").exists():
        raise Message("taken_run", name=name_of(root, place))
    try:
        check_new(place)
    except RunError:
        raise Message("taken_folder", name=name_of(root, place)) from None
    return place


def name_of(root: Path, place: Path) -> str:
    """A run by its name on the page."""
    return place.relative_to(root.resolve()).as_posix()


def train_words(name: str, changes: Sequence[str], place: Path) -> tuple[str, ...]:
    """The words after `sanbu` that train a recipe."""
    return ("train", name, *changes, "--run", str(place))


def resume_words(found: Opened) -> tuple[str, ...]:
    """The words after `sanbu` that resume a run; its folder stands for a recipe of another name."""
    assert found.run is not None
    name = found.run.recipe.name
    try:
        known = recipes.make(name, [])[0].name == name
    except SanbuError:
        known = False
    place = str(found.folder.resolve())
    return ("train", name if known else place, "--run", place, "--resume")


def command_line(words: Sequence[str]) -> str:
    """Words after `sanbu` as a line for a shell."""
    return shlex.join(("sanbu", *words))


def last_line(log: Path) -> str:
    """The last line of a log; empty where there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""

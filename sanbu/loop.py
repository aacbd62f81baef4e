"""THE loop: one page, one way for every recipe."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from sanbu.config import SanbuError
from sanbu.files import write_json
from sanbu.machine import Machine, decide
from sanbu.optimizers.search import NotFinite
from sanbu.recipe import Recipe
from sanbu.run import Run, RunError
from sanbu.strategies.strategy import generate
from sanbu.training import Training
from sanbu.watcher import Silent, Watcher


def train(recipe: Recipe, folder: Path | str | None = None, *, resume: bool = False, watcher: Watcher | None = None) -> Run:
    """Turn a recipe into a run.

    folder: where the run lives; by default runs/NAME, or runs/NAME-2 and so on when that is taken.
    resume: go on from the latest checkpoint in the folder; the result is bitwise that of an uninterrupted run on the
        same machine, thread count and eager mode.
    watcher: told of progress; silent by default.

    Raises SanbuError in one line for what the user can mend, and when a loss is no longer a number.
    """
    recipe, watcher = recipe.resolve(), watcher or Silent()
    run = Run.open(folder) if resume and folder is not None else None
    recipe, machine = decided(recipe, run)
    if run is not None and run.recipe != recipe:
        raise RunError(f"{run.folder} was begun with another recipe; resume it without overrides")
    folder = Path(folder) if folder is not None else free_folder(recipe.name)
    with claimed(folder, recipe), Interrupt() as interrupt, torch.random.fork_rng():
        training = Training(recipe, machine)
        run = run or Run.create(folder, recipe)
        training.data.codec.save(run.folder)
        book = Book(run, training, watcher)
        try:
            book.open()
            while training.step < recipe.schedule.steps and not interrupt.requested and not book.patience_is_over():
                if training.advance():
                    book.round()
            book.close(interrupt.requested)
        except NotFinite as error:
            place = f"step {training.step + 1}, turn {training.turn + 1}"
            raise SanbuError(f"{place}: {error}; {book.last_good()}") from None
        finally:
            watcher.close()
    return run


def decided(recipe: Recipe, run: Run | None) -> tuple[Recipe, Machine]:
    """The machine, and the recipe with its precision written down: what was measured once holds for a resumed run too."""
    settings = recipe.machine
    if run is not None and settings.precision == "auto":
        settings = settings.model_copy(update={"precision": run.recipe.machine.precision})
    machine = decide(settings)
    precision = str(machine.precision).removeprefix("torch.")
    return recipe.model_copy(update={"machine": settings.model_copy(update={"precision": precision})}), machine


class Book:
    """What is written down and shown while a run goes on."""

    def __init__(self, run: Run, training: Training, watcher: Watcher) -> None:
        self.run, self.training, self.watcher, self.schedule = run, training, watcher, training.recipe.schedule
        self.watched = f"held_out/{training.objective.watched}"
        self.best: tuple[float, str] | None = None
        self.saved = -1
        self.since, self.since_cpu = time.perf_counter(), time.process_time()

    def open(self) -> None:
        """Take up the latest checkpoint, if any, and say what the run uses."""
        if paths := self.run.checkpoints():
            state, about = self.run.load_checkpoint(paths[-1])
            if about["data"] != self.training.data.fingerprint:
                raise RunError(f"{self.run.folder}: the data is not what the run began with; a resumed run would be another")
            self.training.restore(state, self.run)
            self.run.cut_metrics(about["metrics_bytes"])
            self.best = tuple(about["best"]) if about["best"] else None
            self.saved = self.training.step
        else:
            self.run.cut_metrics(0)
        self.watcher.begin(self.run, self.training)
        self.since, self.since_cpu = time.perf_counter(), time.process_time()

    def round(self) -> None:
        """After each round: a line of metrics; a look, a sample, a checkpoint when they are due."""
        step, schedule = self.training.step, self.schedule
        row: dict[str, Any] = {"step": step, **self.training.metrics}
        row["time/seconds"] = round(time.perf_counter() - self.since, 6)
        row["time/cpu_seconds"] = round(time.process_time() - self.since_cpu, 6)
        if due(step, schedule.evaluate_every, schedule.steps) and self.training.data.held_out_rows:
            row |= {f"held_out/{name}": value for name, value in self.training.evaluate().items()}
        self.run.record(row)
        self.watcher.step(row)
        if due(step, schedule.sample_every, schedule.steps):
            self.sample()
        if due(step, schedule.checkpoint_every) or (schedule.patience and self.watched in row):
            self.checkpoint(row.get(self.watched))
        self.since, self.since_cpu = time.perf_counter(), time.process_time()

    def sample(self) -> None:
        """Draw a few samples from the model as it is and keep what a person looks at."""
        recipe, codec, model = self.training.recipe, self.training.data.codec, self.training.sampler()
        models = {**self.training.models, "model": model.eval()}
        follower = codec.follow(recipe.strategy)
        condition = {
            name: t.to(self.training.machine.device) for name, t in codec.condition(None, self.schedule.samples).items()
        }
        seeds = torch.arange(self.schedule.samples, device=self.training.machine.device)
        for _ in generate(recipe.strategy.build(recipe.data.space()), models, condition, seeds, follower.update):
            pass
        model.train()
        results = follower.results()
        path = codec.render(results, self.run.folder / "samples" / f"step-{self.training.step:08d}")
        self.watcher.sample(path, results)

    def checkpoint(self, held_out: float | None = None) -> None:
        """Everything needed to go on; the best so far by held-out loss is remembered."""
        training = self.training
        training.check_finite()
        name = f"step-{training.step:08d}" + (f"-turn-{training.turn:04d}" if training.turn else "")
        if held_out is not None and (self.best is None or held_out < self.best[0]):
            self.best = (held_out, name)
        self.run.save_checkpoint(name, training.state(), {"best": self.best, "data": training.data.fingerprint})
        self.run.save_model(training.sampler())
        self.run.save_average(training.step, training.snapshot())
        self.run.prune(self.schedule.keep, self.best[1] if self.best else None)
        self.saved = training.step

    def patience_is_over(self) -> bool:
        """Whether so many looks in a row were no better than the best before them; read from what is written down."""
        if not self.schedule.patience:
            return False
        looks = [row[self.watched] for row in self.run.metrics() if self.watched in row]
        return len(looks) > self.schedule.patience and min(looks[-self.schedule.patience :]) >= min(
            looks[: -self.schedule.patience]
        )

    def last_good(self) -> str:
        """Where to go back to."""
        paths = self.run.checkpoints()
        return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"

    def close(self, interrupted: bool) -> None:
        """The last checkpoint, and how to go on when the run was stopped early."""
        if self.saved != self.training.step or self.training.turn:
            self.checkpoint()
        if self.patience_is_over():
            write_json(self.run.folder / "stopped.json", {"step": self.training.step, "best": self.best})
        if self.schedule.patience and self.best is not None and not interrupted:
            state, _ = self.run.load_checkpoint(self.run.folder / "checkpoints" / self.best[1])
            self.training.restore(state, self.run)
            self.run.save_model(self.training.sampler())
        self.watcher.end(self.run, interrupted)


def due(step: int, every: int, steps: int | None = None) -> bool:
    """Is something that happens every so many steps due now? Also at the last step, where that is given."""
    return every > 0 and (step % every == 0 or step == steps)


@contextmanager
def claimed(folder: Path, recipe: Recipe) -> Iterator[None]:
    """Hold a run folder; one that was made for nothing goes again."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with Run(folder, recipe).lock():
        try:
            yield
        finally:
            if new and not (folder / "recipe.json").exists():
                shutil.rmtree(folder)


def free_folder(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, -3, ... that is not taken."""
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a wish to save and stop; a second one acts as usual."""

    def __init__(self) -> None:
        self.requested = False
        self.old: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self.old[number])

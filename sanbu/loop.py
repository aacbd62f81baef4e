"""The training loop, the same for every recipe."""

from __future__ import annotations

import shutil
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanbu.checkpoints import RunError, Writer, check_new
from sanbu.config import SanbuError, change, plain
from sanbu.display.console import Console
from sanbu.machine import Machine, decide, find_device
from sanbu.memory.check import check_ranks, check_run
from sanbu.memory.cost import flops_per_row
from sanbu.memory.parts import told_in_one_line
from sanbu.optimizers.search import NotFinite
from sanbu.parallel.launch import launch
from sanbu.parallel.pace import Pace
from sanbu.parallel.states import Kept, load, weights_here, whole
from sanbu.parallel.world import World, join, launched
from sanbu.progress import Interrupt, interruptible, start
from sanbu.recipe import Recipe, walk
from sanbu.run import Run
from sanbu.training import Training
from sanbu.watcher import STOP, Watcher, Watchers

RECENT, FEW = 32, 8  # steps that a loss is compared with, and how many there must be


def train(
    recipe: Recipe,
    folder: Path | str | None = None,
    *,
    resume: bool = False,
    watchers: Sequence[Watcher] | None = None,
    **fields: Any,
) -> Run:
    """Turn a recipe into a run.

    folder: where the run lives; by default runs/NAME, or runs/NAME-2 and so on when that is taken. resume: continue
    from the latest checkpoint in the folder; the result is bitwise that of an uninterrupted run on the
        same machine, thread count and eager mode.
    watchers: told of progress, and able to stop the run; by default a progress bar in a terminal and in Jupyter, and
        a line now and then elsewhere. An empty list is silent.
    fields: changes of the recipe or its schedule, as in steps=200; see `Recipe.change`.

    Raises SanbuError in one line for what the user can fix, and when a loss becomes NaN or infinite.
    """
    recipe = recipe.change(**fields)
    if recipe.layout.processes() > 1 and not launched():
        place = Path(folder) if folder is not None else free_folder(recipe.name)
        if watchers is not None and any(type(each) is not Console for each in watchers):
            raise SanbuError("watchers: processes that are started here cannot call them; start this with torchrun")
        launch(recipe, place, resume, recipe.layout.processes(), silent=watchers is not None and not watchers)
        return Run.open(place)
    with join(recipe.layout, find_device(recipe.machine.device).type) as world:
        watcher = Watchers(([Console()] if watchers is None else watchers) if world.first else [])
        place = Path(world.from_first(str(folder if folder is not None else free_folder(recipe.name))))
        return train_here(recipe, place, resume, watcher, world)


def train_here(recipe: Recipe, folder: Path, resume: bool, watcher: Watcher, world: World) -> Run:
    """Train in this process, which may be one of several."""
    with world.one_by_one():
        recipe = recipe.resolve()
    run = Run.open(folder) if resume else None
    if run is not None:
        run.check_parents()
    recipe, machine = choose_machine(recipe, run, world)
    if run is not None and run.recipe.change(layout=recipe.layout) != recipe:
        raise RunError(f"{run.folder} was started with a different recipe; resume it without overrides")
    world.same("versions", [f"sanbu {version('sanbu')}", f"torch {torch.__version__}"])
    world.same("recipes", [f"{path}={plain(value)}" for path, value, _, _ in walk(recipe)])
    if run is None:
        world.once(lambda: check_new(folder))
    parents = {name: Run.open(path).recipe for name, path in recipe.parents.items()}
    if world.alone:
        check_run(recipe, parents, machine.device.type, machine.precision)
    else:
        check_ranks(recipe, parents, machine.precision, world)
    locked = claim(folder) if world.first else nullcontext()
    with interruptible(), locked, torch.random.fork_rng(), told_in_one_line(partial(ran_out, recipe, folder)):
        training = Training(recipe, machine, world)
        if run is None:
            codec, source = training.data.codec, training.data.fingerprint
            world.once(lambda: Writer.create(folder, recipe, codec.save, source))
        run = Run.open(folder)
        learn(Book(run, training, watcher))
    return run


def ran_out(recipe: Recipe, folder: Path) -> str:
    """What to say when memory ran out: the last checkpoint, and what to lower."""
    paths = Writer(folder).checkpoints()
    saved = f"the last checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"
    rows = f"schedule.micro_batch (now {recipe.schedule.micro_batch}) or schedule.batch ({recipe.schedule.batch})"
    context = f", data.context ({recipe.data.context})" if hasattr(recipe.data, "context") else ""
    return f"memory ran out in the training of {recipe.name}; {saved}; lower {rows}{context}, or the size of the model"


def learn(book: Book) -> None:
    """Take the steps of a run that are left, until it is done or an interrupt asks to save and stop."""
    training = book.training
    with Interrupt(again=training.world.alone) as interrupt:
        try:
            book.open()
            while training.step < book.schedule.steps and not book.over(interrupt.requested):
                book.advance()
            book.close()
        except NotFinite as error:
            raise SanbuError(f"{book.place()}: {error}; {book.last_good()}") from None
        finally:
            wait([book.writing] if book.writing else [])
            book.watcher.close()


def choose_machine(recipe: Recipe, run: Run | None, world: World) -> tuple[Recipe, Machine]:
    """The machine, and the recipe with the precision that was measured, so that a resumed run uses the same."""
    settings = recipe.machine
    if run is not None and settings.precision == "auto":
        settings = change(settings, {"precision": run.recipe.machine.precision})
    if settings.precision == "auto" and not world.alone:
        measured = str(decide(settings).precision).removeprefix("torch.")
        settings = change(settings, {"precision": world.from_first(measured)})
    machine = decide(settings, world.here)
    precision = str(machine.precision).removeprefix("torch.")
    return recipe.change(machine=change(settings, {"precision": precision})), machine


class Book:
    """Writes metrics, samples and checkpoints of a run, and tells the watchers."""

    def __init__(self, run: Run, training: Training, watcher: Watcher) -> None:
        self.run, self.training, self.watcher = run, training, watcher
        self.writer, self.schedule = Writer(run.folder), training.recipe.schedule
        self.watched = f"held_out/{training.objective.watched}"
        self.best: tuple[float, str] | None = None
        self.looks: list[float] = []  # held-out losses so far, for patience
        self.losses: deque[float] = deque(maxlen=RECENT)
        self.saved, self.stopped, self.interrupted = -1, False, False
        self.world, self.divided = training.world, training.divided
        self.aside = self.world.aside() if self.schedule.saving == "background" else self.world
        self.writing: Future[None] | None = None
        flops = partial(flops_per_row, training.recipe)
        self.pace = Pace(self.world, training.rows, run.folder, training.machine.precision, flops)

    def open(self) -> None:
        """Restore the latest checkpoint, if any, and tell the watchers what the run uses."""
        self.world.once(self.writer.clean)
        latest = self.world.from_first([path.name for path in self.writer.checkpoints()[-1:]])
        if latest:
            self.restore(self.run.folder / "checkpoints" / latest[0])
        else:
            self.world.once(lambda: self.writer.restore_metrics(0, None))
            if self.schedule.rewinds:
                self.checkpoint()
        self.watcher.begin(self.run, self.training)
        self.pace.start()

    def restore(self, path: Path, take_up: Callable[[dict[str, Any], Path], None] | None = None) -> None:
        """Restore a checkpoint, and complete what an interruption left undone after it."""
        state, about = load(self.divided, self.writer, path)
        if about["data"] != self.training.data.fingerprint:
            raise RunError(f"{self.run.folder}: the data has changed since the run started, so it cannot be resumed")
        finished = self.world.from_first(self.run.finished())
        if not finished:
            self.world.once(self.writer.reopen)
        (take_up or self.training.restore)(state, self.run.folder)
        self.world.once(lambda: self.writer.restore_metrics(about["metrics_bytes"], about.get("metrics")))
        rows = self.run.metrics()
        self.looks = [row[self.watched] for row in rows if self.watched in row]
        self.losses = deque((row["loss"] for row in rows if "loss" in row), RECENT)
        self.best = tuple(about["best"]) if about["best"] else None
        self.saved = self.training.step
        if not finished:
            self.complete(self.kept(path.name, state))

    def advance(self) -> None:
        """Make one turn, and what is due after a round. Goes back where the schedule allows it."""
        try:
            if self.training.advance():
                self.round()
        except NotFinite as error:
            if self.training.rewinds == self.schedule.rewinds:
                raise
            self.rewind(error)

    def rewind(self, error: NotFinite) -> None:
        """Go back to the latest checkpoint on the schedule, and leave out the batches that were used since."""
        self.settle()
        name = self.world.from_first(self.writer.regular(self.schedule.checkpoint_every))
        if name is None:
            raise error
        reason = f"{self.place()}: {error}"
        self.world.once(lambda: self.writer.remove_after(name))
        self.restore(self.run.folder / "checkpoints" / name, self.training.rewind)
        self.watcher.rewind(self.training.step, reason)
        self.pace.start()

    def check_rise(self, loss: float | None) -> None:
        """Raise NotFinite for a loss that is far above those of the last steps."""
        if loss is None or not self.schedule.spike:
            return
        if len(self.losses) >= FEW and loss > statistics.median(self.losses) + self.schedule.spike:
            raise NotFinite(f"the loss rose to {loss:.4g} from about {statistics.median(self.losses):.4g}")
        self.losses.append(loss)

    def round(self) -> None:
        """After each round: write metrics, and evaluate, sample and write a checkpoint when they are due."""
        step, schedule = self.training.step, self.schedule
        row: dict[str, Any] = {"step": step, **self.training.metrics, **self.pace.stop()}
        self.check_rise(row.get("loss"))
        if schedule.rewinds:
            row["skipped"] = self.training.skipped
            if step == schedule.steps:
                self.training.check_finite()
        if due(step, schedule.evaluate_every, schedule.steps) and self.training.data.held_out_rows:
            row |= {f"held_out/{name}": value for name, value in self.training.evaluate().items()}
        if self.world.first:
            self.writer.record(row)
        if self.watched in row:
            self.looks.append(row[self.watched])
        self.stopped = self.watcher.step(row) == STOP
        if due(step, schedule.sample_every, schedule.steps):
            self.sample()
        if due(step, schedule.checkpoint_every) or (schedule.patience and self.watched in row):
            self.checkpoint(row.get(self.watched))
        self.pace.start()

    def sample(self) -> None:
        """Draw samples and write them into a file for people."""
        results = self.training.sample(self.schedule.samples)
        place = self.run.folder / "samples" / f"step-{self.training.step:08d}"
        if self.world.first:
            self.watcher.sample(self.training.data.codec.render(results, place), results)

    def checkpoint(self, held_out: float | None = None) -> None:
        """Write a checkpoint, and note it if its held-out loss is the best so far."""
        training = self.training
        training.check_finite()
        name = f"step-{training.step:08d}" + (f"-turn-{training.turn:04d}" if training.turn else "")
        if held_out is not None and (self.best is None or held_out < self.best[0]):
            self.best = (held_out, name)
        self.settle()
        kept = self.kept(name, training.state())
        if self.schedule.saving == "background":
            self.writing = start(partial(self.write, kept.copied()))
        else:
            self.write(kept)
        self.pace.report(training.step)
        self.saved = training.step

    def kept(self, name: str, state: dict[str, Any]) -> Kept:
        """What belongs to a checkpoint. Every rank takes part in it."""
        training = self.training
        about = {"best": self.best, "data": training.data.fingerprint, **self.writer.facts()}
        tensors: dict[str, Tensor] = {}
        if not self.world.from_first(self.writer.has_model(name)):
            tensors = whole(self.divided, weights_here(self.divided, training.sampler()))
        return Kept(name, training.step, about, state, tensors, whole(self.divided, training.snapshot()))

    def write(self, kept: Kept) -> None:
        """Write a checkpoint, and then what belongs to it; perhaps in a thread of its own."""
        kept.save(self.aside, self.writer)
        self.complete(kept)

    def complete(self, kept: Kept) -> None:
        """After a checkpoint: write its model and its snapshot of the average, and delete old checkpoints."""
        regular = self.schedule.checkpoint_every if self.schedule.rewinds else None
        kept.complete(self.aside, self.writer, self.schedule.keep, regular)

    def settle(self) -> None:
        """Wait for the checkpoint that is being written. Raises what went wrong."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def over(self, interrupted: bool) -> bool:
        """Whether the run is to stop: an interrupt, a watcher, or its patience is over."""
        self.interrupted, stopped = self.world.any(interrupted, self.stopped)
        return self.interrupted or stopped or self.patience_is_over()

    def patience_is_over(self) -> bool:
        """Whether the last `patience` evaluations were no better than the best before them, of held-out rows."""
        patience = self.schedule.patience
        if not patience or len(self.looks) <= patience:
            return False
        return min(self.looks[-patience:]) >= min(self.looks[:-patience])

    def place(self) -> str:
        """Where training is, for an error message."""
        return f"step {self.training.step + 1}, turn {self.training.turn + 1}"

    def last_good(self) -> str:
        """Where the last good checkpoint is, for an error message."""
        self.settle()
        paths = self.writer.checkpoints()
        return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"

    def close(self) -> None:
        """Write the last checkpoint; with patience, put the best weights into the model; mark the run as finished."""
        if self.saved != self.training.step or self.training.turn:
            self.checkpoint()
        self.settle()
        if not self.interrupted and not self.world.from_first(self.run.finished()):
            if self.schedule.patience and self.best is not None:
                state, _ = load(self.divided, self.writer, self.run.folder / "checkpoints" / self.best[1])
                self.training.restore(state, self.run.folder)
                self.complete(self.kept(self.best[1], state))
            self.world.once(lambda: self.writer.finish(self.writer.checkpoints()[-1].name))
        self.watcher.end(self.run, self.interrupted)


def due(step: int, every: int, steps: int | None = None) -> bool:
    """Whether something that happens every `every` steps is due; at the last step (`steps`), where given, it is."""
    return every > 0 and (step % every == 0 or step == steps)


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Lock a run folder; remove it again if it was created here and an error ended the run before its first step."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with Writer(folder).lock():
        try:
            yield
        except BaseException:
            if new and not (folder / "metrics.jsonl").exists() and not Writer(folder).checkpoints():
                shutil.rmtree(folder)
            raise


def free_folder(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, -3, ... that does not exist."""
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder

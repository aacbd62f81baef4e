"""Training progress: a bar with time left, one line about the machine, evaluations and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sanbu.display.ranks import table
from sanbu.parallel.pace import ranks_of
from sanbu.progress import BAR, Lines, error_stream
from sanbu.watcher import Watcher

if TYPE_CHECKING:
    from sanbu.run import Run
    from sanbu.training import Training

WIDE = 100  # characters: a narrower terminal gets a shorter bar
TIMES = 21  # characters of the time spent, the time left and the spaces between columns


class Console(Watcher):
    """A progress bar in a terminal and in Jupyter; elsewhere a line now and then, see `sanbu.progress.Lines`."""

    def __init__(self) -> None:
        self.out = error_stream()
        self.bar: Progress | None = None
        self.rate = 0.0
        self.rows: list[Mapping[str, Any]] = []
        self.warned: set[str] = set()

    def begin(self, run: Run, training: Training) -> None:
        """One line for the run and one for the machine, then the bar."""
        schedule = training.recipe.schedule
        parameters = sum(p.numel() for p in training.models["model"].parameters())
        weights = f"{parameters:,} parameters, " if parameters else ""  # a forest has none
        size = f"{weights}{schedule.steps:,} steps of {schedule.batch} rows"
        self.say(f"{run.recipe.name} -> {run.folder}: {size}")
        self.say(f"data: {training.data.describe()}")
        self.say(f"on {training.machine.describe()}")
        caution = run.recipe.model.caution(run.recipe.data.space())
        if caution:
            self.say(caution)
        if training.step:
            self.say(f"resumed at step {training.step:,}")
        self.lines = Lines("training", schedule.steps, training.step)
        rows = schedule.batch if isinstance(schedule.batch, int) else 0
        self.codec = training.data.codec
        self.amount = self.codec.amount(training.data.batch(0, 1))
        self.per_step = rows * self.amount
        self.unit = f"{self.codec.unit}/s"
        if self.out.is_terminal or self.out.is_jupyter:
            bar = BAR if self.out.width >= WIDE else BAR // 2
            counts = f"{schedule.steps}/{schedule.steps}"
            self.room = self.out.width - bar - len(counts) - TIMES
            columns = (
                BarColumn(bar_width=bar),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.out, refresh_per_second=4)
            self.task = self.bar.add_task("", total=schedule.steps, completed=training.step)
            self.bar.start()

    def step(self, row: Mapping[str, Any]) -> str | None:
        """Move the bar; without a terminal, print a line now and then."""
        speed = self.per_step / max(row["time/seconds"], 1e-9)
        self.rate = speed if not self.rate else 0.95 * self.rate + 0.05 * speed
        parts = describe(row, self.rate, self.unit)
        if self.bar is not None:
            self.bar.update(self.task, completed=row["step"], description=those_that_fit(parts, self.room))
        else:
            self.lines.done = row["step"]
            steps = f"{row['step']:,} of {self.lines.total:,}"
            self.lines.say(f"step {steps}  {', '.join(parts)}")
        if any(name.startswith("held_out/") for name in row):
            shown = ", ".join(
                f"{name.removeprefix('held_out/')} {row[name]:.3f}" for name in row if name.startswith("held_out/")
            )
            self.say(f"step {row['step']:,}: held out: {shown}")
        self.check_health(row)
        return None

    def check_health(self, row: Mapping[str, Any]) -> None:
        """The health panel of reinforcement learning with each evaluation; warnings as soon as they apply."""
        from sanbu.display.health import diagnose, is_policy, panel

        if not is_policy(row):
            return
        self.rows.append(row)
        found = [text for text in diagnose(self.rows) if text.split(":")[0] not in self.warned]
        if any(name.startswith("held_out/") for name in row):
            self.out.print(panel(self.rows))
        for text in found:
            self.warned.add(text.split(":")[0])
            self.say(f"step {row['step']:,}: {text}")

    def sample(self, path: Path, results: Sequence[Any]) -> None:
        """Show a sample where a terminal can; otherwise say where it is."""
        shown = self.codec.show(results[0]) if results else ""
        lines = [line for line in shown.strip().splitlines() if line.strip()][:4]
        self.say("\n".join(f"  | {line[:100]}" for line in lines) if lines else f"sample: {path}")

    def rewind(self, step: int, reason: str) -> None:
        """Say why training went back."""
        self.say(f"{reason}; back to step {step:,}, without the batches since")

    def end(self, run: Run, interrupted: bool) -> None:
        """Say how the ranks of several did, where the run is, and how to continue it."""
        self.close()
        ranks = ranks_of(run.folder)
        if ranks:
            self.say(table(ranks, self.amount, self.unit))
        if interrupted:
            self.say(f"stopped and saved; continue with: sanbu train {run.recipe.name} --run {run.folder} --resume")
        else:
            self.say(f"done: {run.folder}")

    def close(self) -> None:
        """Stop the bar and restore the terminal."""
        if self.bar is not None:
            self.bar.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.out.print(escape(line))


def those_that_fit(parts: Sequence[str], room: int) -> str:
    """The parts that fit into `room` characters, the first ones first."""
    shown: list[str] = []
    for part in parts:
        if len(", ".join([*shown, part])) <= room:
            shown.append(part)
    return ", ".join(shown)


def describe(row: Mapping[str, Any], rate: float, unit: str) -> list[str]:
    """The few metrics shown beside the bar, and the speed."""
    shown = [
        f"{name.replace('_', ' ')} {row[name]:.3f}"
        for name in ("loss", "bits_per_byte", "bits_per_dimension", "reward", "exact", "kl", "accuracy")
        if name in row
    ]
    players = [name for name in row if name.endswith("/loss") and not name.startswith("held_out")]
    losses = [f"{name} {row[name]:.3f}" for name in players]
    return [*shown, *losses, f"{rate:,.0f} {unit}"]

"""Which measurement runs ask for: few-shot tasks, or what their data names (`DataConfig.measure`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanbu.config import module_of
from sanbu.evaluation.few_shot import evaluate_tasks
from sanbu.evaluation.options import Measured, Options, readable, table
from sanbu.run import Run


def evaluate(*runs: Run | Path | str, **options: Any) -> dict[str, Any]:
    """Figures of runs on held-out data; see `Options`. Raises ConfigError for runs that do not fit together."""
    found, _ = measure([run if isinstance(run, Run) else Run.open(run) for run in runs], **options)
    return found


def measure(runs: Sequence[Run], **options: Any) -> Measured:
    """The figures, and the same as a person reads them. Raises ConfigError for what does not go together."""
    asked = Options(**options)
    if asked.tasks:
        return by_tasks(runs, asked)
    first = runs[0].recipe
    name = first.data.measure if first.strategy.draws else "objective"
    return module_of("sanbu.evaluation:MEASURES", name).measure(runs, asked)


def by_tasks(runs: Sequence[Run], options: Options) -> Measured:
    """Few-shot tables."""
    found = {
        str(run.folder): evaluate_tasks(run, options.tasks, options.shots, options.folder, options.questions)
        for run in runs
    }
    titles = ["run", "task", "shots", "accuracy", "error", "normalised", "chance", "questions"]
    rows = [
        [Path(name).name, *(readable(row[title]) for title in titles[1:])]
        for name, result in found.items()
        for row in result["rows"]
    ]
    prompts = next(iter(found.values()))["prompts"]
    shown = "\n".join(f"\n{task}, a whole prompt:\n{prompt}" for task, prompt in prompts.items())
    return {"runs": found}, table(titles, rows) + "\n" + shown

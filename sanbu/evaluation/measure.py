"""Which measurement a run asks for, by what it learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanbu.config import ConfigError
from sanbu.data.chat import ConversationConfig
from sanbu.data.image_rows import Images
from sanbu.run import Run

Measured = tuple[dict[str, Any], str]


def measure(
    folders: Sequence[Path],
    data: str | None,
    inception: int,
    tasks: str | None,
    shots: str,
    files: Path,
    questions: int,
) -> Measured:
    """The figures, and the same as a person reads them. Raises ConfigError for what does not go together."""
    runs = [Run.open(folder) for folder in folders]
    if tasks is not None:
        return by_tasks(runs, tasks, shots, files, questions)
    config = runs[0].recipe.data
    if isinstance(config, ConversationConfig) and runs[0].recipe.model.family == "tokens":
        return by_questions(folders, questions)
    if len(runs) > 1:
        raise ConfigError(
            f"evaluate: given {len(runs)} runs, but only assistants are measured together; see: sanbu compare"
        )
    found = of_one(runs[0], data, inception)
    return {"run": str(runs[0].folder), **found}, "\n".join(
        f"{key.replace('_', ' ')}: {readable(v)}" for key, v in found.items()
    )


def of_one(run: Run, data: str | None, inception: int) -> dict[str, Any]:
    """A run by itself."""
    if isinstance(run.recipe.data, Images):
        from sanbu.evaluation.compare import compare_runs
        from sanbu.evaluation.report import plain

        if data is not None:
            raise ConfigError("--data: a run of pictures is evaluated on its own test part")
        found = plain(compare_runs([run.folder])[-1])
        if inception:
            from sanbu.evaluation.inception import inception as distance

            found |= distance(run.to("auto"), inception)
        return found
    if run.recipe.model.family == "scorer" or run.recipe.data.model_dump()["kind"] == "mappings":
        from sanbu.evaluation.held_out import objective_on_held_out

        return objective_on_held_out(run)
    from sanbu.evaluation.text import evaluate_run

    return evaluate_run(run.folder, data)


def by_questions(folders: Sequence[Path], questions: int) -> Measured:
    """Assistants side by side."""
    from sanbu.evaluation.assistant import evaluate_assistants

    found = evaluate_assistants(folders, questions)
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [[name.replace("_", " "), *(readable(row.get(name, "")) for row in found.values())] for name in names]
    return {"runs": found}, table(["", *(Path(name).name for name in found)], rows)


def by_tasks(runs: Sequence[Run], tasks: str, shots: str, files: Path, questions: int) -> Measured:
    """Few-shot tables."""
    from sanbu.evaluation.few_shot import evaluate_tasks

    if not all(part.strip().isdigit() for part in shots.split(",")):
        raise ConfigError(f"--shots: given {shots!r}, but numbers apart by commas are needed, as in 0,1,5")
    counts = [int(part) for part in shots.split(",")]
    found = {str(run.folder): evaluate_tasks(run, tasks.split(","), counts, files, questions) for run in runs}
    titles = ["run", "task", "shots", "accuracy", "error", "normalised", "chance", "questions"]
    rows = [
        [Path(name).name, *(readable(row[title]) for title in titles[1:])]
        for name, each in found.items()
        for row in each["rows"]
    ]
    prompts = "\n".join(
        f"\n{task}, a whole prompt:\n{prompt}" for task, prompt in next(iter(found.values()))["prompts"].items()
    )
    return {"runs": found}, table(titles, rows) + "\n" + prompts


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text."""
    widths = [max(len(str(row[i])) for row in [titles, *rows]) for i in range(len(titles))]
    return "\n".join(
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [titles, *rows]
    )


def readable(value: Any) -> str:
    """A figure as a person reads it."""
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)

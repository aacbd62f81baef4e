"""Zero-shot and few-shot tables (Radford and others, 2019; Brown and others, 2020).

A task is a small data file: where its records lie and how one is written down. Choices are compared by the
log-likelihood of what follows the prompt, and by the same for each byte (normalised). Worked examples stand before
the question, drawn by a hash from other records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sanbu.config import Config, SanbuError, kind_of, load, nearest
from sanbu.data.conversations import lines
from sanbu.evaluation.likelihood import loglikelihoods, split
from sanbu.noise import key
from sanbu.run import Run

TASKS = Path(__file__).parent / "tasks"


class Task(Config):
    """How a record is asked.

    choice: `choices` names a list, `answer` the right one's index. text: the last word of `text` is to be predicted.
    pair: `good` against `bad`. {field} in prompt and choice stands for a field of the record; {choice} for one of its
    choices.
    """

    name: str
    kind: Literal["choice", "text", "pair"]
    file: str
    examples: str = ""
    prompt: str = ""
    choice: str = " {choice}"
    choices: str = "choices"
    answer: str = "answer"
    good: str = "good"
    bad: str = "bad"
    text: str = "text"


@dataclass(frozen=True)
class Asked:
    """A prompt, what may follow it, and which is right; of pairs, each side has its own prompt."""

    prompt: str
    options: tuple[str, ...]
    right: int


def evaluate_tasks(run: Run, names: Sequence[str], shots: Sequence[int], folder: Path, count: int) -> dict[str, Any]:
    """A row for each task and number of shots, and a whole prompt of each task. Raises SanbuError in one line."""
    if run.codec.medium != "text" or not run.recipe.strategy.draws:
        raise SanbuError(f"{run.folder} gives text no probability: its model is a {kind_of(run.recipe.model)!r}")
    rows: list[dict[str, Any]] = []
    prompts: dict[str, str] = {}
    for name in names:
        task = find(name.strip())
        records = read(task, task.file, folder)
        examples = read(task, task.examples, folder) if task.examples else records
        for k in shots:
            asked = [ask(task, records, examples, number, k) for number in chosen(len(records), count)]
            rows.append({"task": task.name, "shots": k, **score(run, task, asked)})
            prompts[task.name] = asked[0].prompt + asked[0].options[asked[0].right]
    return {"rows": rows, "prompts": prompts}


def find(name: str) -> Task:
    """A task of that name, or a task file. Raises SanbuError with the nearest match."""
    known = {path.stem: path for path in TASKS.glob("*.json")}
    path = known.get(name, Path(name))
    if not path.is_file():
        raise SanbuError(
            f"--tasks: unknown task {name!r}; tasks: {', '.join(sorted(known))}{nearest(name, known)}; or a file"
        )
    return load(Task, json.loads(path.read_text(encoding="utf-8")))


def read(task: Task, name: str, folder: Path) -> list[dict[str, Any]]:
    """The records of a task's file. Raises SanbuError when it is not there."""
    path = folder / name
    if not path.is_file():
        raise SanbuError(f"--tasks: {task.name} reads {path}, which is not there; set --folder to where your files lie")
    return [record for _, record in lines(path)]


def chosen(total: int, count: int) -> list[int]:
    """So many records, spread evenly over all."""
    return list(range(total)) if count >= total else [i * total // count for i in range(count)]


def ask(task: Task, records: list[dict[str, Any]], examples: list[dict[str, Any]], number: int, shots: int) -> Asked:
    """The record as a prompt with worked examples before it; never itself."""
    record = records[number]
    order = (
        sorted((i for i in range(len(examples)) if examples[i] != record), key=lambda i: key("shots", number, i))
        if shots
        else []
    )
    worked = "".join(whole(task, examples[i]) + "\n\n" for i in order[:shots])
    if task.kind == "pair":
        return Asked(worked, (record[task.good], record[task.bad]), 0)
    if task.kind == "text":
        before, _, last = record[task.text].rstrip().rpartition(" ")
        return Asked(worked + before, (" " + last,), 0)
    options = tuple(task.choice.format(**record, choice=choice) for choice in record[task.choices])
    return Asked(worked + task.prompt.format(**record), options, int(record[task.answer]))


def whole(task: Task, record: dict[str, Any]) -> str:
    """A worked example."""
    asked = ask(task, [record], [], 0, 0)
    return asked.prompt + asked.options[asked.right]


def score(run: Run, task: Task, asked: Sequence[Asked]) -> dict[str, Any]:
    """Accuracy with its standard error, and by likelihood a byte."""
    pairs = [split(run, each.prompt, option) for each in asked for option in each.options]
    scored = iter(loglikelihoods(run, pairs, f"{task.name}"))
    right, normalised, chance = 0, 0, 0.0
    for each in asked:
        values = [next(scored) for _ in each.options]
        if task.kind == "text":
            right += values[0][1]
            continue
        sums = [value for value, _ in values]
        means = [value / max(1, len(option.strip().encode())) for value, option in zip(sums, each.options, strict=True)]
        right += sums.index(max(sums)) == each.right
        normalised += means.index(max(means)) == each.right
        chance += 1 / len(each.options)
    total = len(asked)
    accuracy = right / total
    return {
        "accuracy": accuracy,
        "error": (accuracy * (1 - accuracy) / max(1, total - 1)) ** 0.5,
        "normalised": normalised / total if task.kind != "text" else accuracy,
        "chance": chance / total,
        "questions": total,
    }

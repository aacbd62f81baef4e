"""Zero-shot and few-shot tables (Radford and others, 2019; Brown and others, 2020).

A task is a small JSON file: the file of its records and the templates of prompt and choices. Choices are compared by
their log-likelihood after the prompt, and by their log-likelihood per byte (normalised). Worked examples before the
question are drawn from other records by a hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sanbu.config import Config, SanbuError, kind_of, load, nearest
from sanbu.data.conversations import lines
from sanbu.evaluation.likelihood import loglikelihoods, split
from sanbu.files import read_object
from sanbu.noise import key
from sanbu.run import Run

TASKS = Path(__file__).parent / "tasks"


class Task(Config):
    """How a record becomes a question.

    kind "choice": field `choices` of a record is a list, field `answer` the index of the right one. "text": the model
    predicts the last word of field `text`. "pair": field `good` is compared with field `bad`. In `prompt` and `choice`,
    {field} is replaced by a field of the record and {choice} by one of its choices.
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
class FewShotQuestion:
    """A prompt, its possible continuations, and the index of the right one. Of a pair, both whole texts are options."""

    prompt: str
    options: tuple[str, ...]
    right: int


def evaluate_tasks(run: Run, names: Sequence[str], shots: Sequence[int], folder: Path, count: int) -> dict[str, Any]:
    """A row per task and number of shots, and one whole prompt of each task. Raises SanbuError in one line."""
    if run.codec.medium != "text" or not run.recipe.strategy.draws:
        model = kind_of(run.recipe.model)
        raise SanbuError(f"--tasks: {run.folder} is not a language model that samples text: its model is {model!r}")
    rows: list[dict[str, Any]] = []
    prompts: dict[str, str] = {}
    for name in names:
        task = find(name.strip())
        records = read_records(task, task.file, folder)
        examples = read_records(task, task.examples, folder) if task.examples else records
        numbers = spread_evenly(len(records), count)
        for k in shots:
            questions = [checked_question(task, records[number], examples, number, k) for number in numbers]
            rows.append({"task": task.name, "shots": k, **score(run, task, questions)})
            prompts[task.name] = with_answer(questions[0])
    return {"rows": rows, "prompts": prompts}


def find(name: str) -> Task:
    """The task of that name or in that file. Raises SanbuError with the nearest match."""
    known = {path.stem: path for path in TASKS.glob("*.json")}
    path = known.get(name, Path(name))
    if not path.is_file():
        names = ", ".join(sorted(known))
        raise SanbuError(f"--tasks: unknown task {name!r}; tasks: {names}{nearest(name, known)}; or give a task file")
    return load(Task, read_object(path), f"--tasks: {path}")


def read_records(task: Task, name: str, folder: Path) -> list[dict[str, Any]]:
    """The records in a file of a task. Raises SanbuError if the file is missing."""
    path = folder / name
    if not path.is_file():
        raise SanbuError(
            f"--tasks: {task.name} reads {path}, which is not there; set --folder to the directory with the task files"
        )
    found = [record for _, record in lines(path)]
    if not found:
        raise SanbuError(f"--tasks: {task.name}: {path} has no record")
    return found


def spread_evenly(total: int, count: int) -> list[int]:
    """`count` numbers below `total`, evenly spread; all of them if there are no more than `count`."""
    if count >= total:
        return list(range(total))
    return [i * total // count for i in range(count)]


def make_question(
    task: Task, record: dict[str, Any], examples: list[dict[str, Any]], number: int, shots: int
) -> FewShotQuestion:
    """The record as a prompt, after `shots` worked examples other than itself. number: of the record, for the hash."""
    worked = ""
    if shots:
        others = [i for i in range(len(examples)) if examples[i] != record]
        others.sort(key=lambda i: key("shots", number, i))
        for i in others[:shots]:
            worked += with_answer(make_question(task, examples[i], [], 0, 0)) + "\n\n"
    if task.kind == "pair":
        return FewShotQuestion(worked, (record[task.good], record[task.bad]), 0)
    if task.kind == "text":
        before, _, last = record[task.text].rstrip().rpartition(" ")
        return FewShotQuestion(worked + before, (" " + last,), 0)
    options = tuple(task.choice.format(**record, choice=choice) for choice in record[task.choices])
    return FewShotQuestion(worked + task.prompt.format(**record), options, int(record[task.answer]))


def checked_question(task: Task, record: dict[str, Any], examples: list[dict[str, Any]], number: int, k: int) -> Any:
    """`make_question`. Raises SanbuError for a record that does not fit the templates of the task."""
    try:
        question = make_question(task, record, examples, number, k)
        if not 0 <= question.right < len(question.options) or not all(question.options):
            raise ValueError(f"the answer {question.right} is not one of {len(question.options)} options")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        fields = ", ".join(record)
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise SanbuError(f"--tasks: {task.name}: record {number + 1}: {reason}; fields: {fields}") from None
    return question


def with_answer(question: FewShotQuestion) -> str:
    """The prompt followed by the right answer."""
    return question.prompt + question.options[question.right]


def score(run: Run, task: Task, questions: Sequence[FewShotQuestion]) -> dict[str, Any]:
    """Accuracy with its standard error, and accuracy by log-likelihood per byte (normalised)."""
    pairs = [split(run, question.prompt, option) for question in questions for option in question.options]
    scored = iter(loglikelihoods(run, pairs, f"{task.name}"))
    right, normalised, chance = 0, 0, 0.0
    for question in questions:
        values = [next(scored) for _ in question.options]
        if task.kind == "text":
            right += int(values[0][1])
            continue
        sums = [value for value, _ in values]
        sizes = [max(1, len(option.strip().encode())) for option in question.options]
        means = [value / size for value, size in zip(sums, sizes, strict=True)]
        right += int(sums.index(max(sums)) == question.right)
        normalised += int(means.index(max(means)) == question.right)
        chance += 1 / len(question.options)
    total = len(questions)
    accuracy = right / total
    return {
        "accuracy": accuracy,
        "error": (accuracy * (1 - accuracy) / max(1, total - 1)) ** 0.5,
        "normalised": normalised / total if task.kind != "text" else accuracy,
        "chance": chance / total,
        "questions": total,
    }

"""Zero-shot and few-shot tables (Radford and others, 2019; Brown and others, 2020).

Choices are compared by their log-likelihood after the prompt, and by their log-likelihood per byte (normalised). Worked
examples before the question are other questions, drawn by a hash. A task is a small JSON file: see `questions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanbu.config import SanbuError, kind_of
from sanbu.evaluation.likelihood import loglikelihoods, split
from sanbu.evaluation.questions import Question, Task, find, read_questions
from sanbu.noise import key
from sanbu.run import Run


def evaluate_tasks(run: Run, names: Sequence[str], shots: Sequence[int], folder: Path, count: int) -> dict[str, Any]:
    """A row per task and number of shots, and one whole prompt of each task. Raises SanbuError in one line.

    A row has the number of worked examples that were asked for, `asked`, and the mean of those that the model saw,
    `shots`, which is smaller where its context is too short. cut: questions whose own beginning did not fit.
    """
    if run.codec.medium != "text" or not run.recipe.strategy.draws:
        model = kind_of(run.recipe.model)
        raise SanbuError(f"--tasks: {run.folder} is not a language model that samples text: its model is {model!r}")
    rows: list[dict[str, Any]] = []
    prompts: dict[str, str] = {}
    for name in names:
        task = find(name.strip())
        questions = read_questions(task, task.file, folder)
        examples = read_questions(task, task.examples, folder) if task.examples else questions
        numbers = spread_evenly(len(questions), count)
        for k in shots:
            asked = [
                Prompted(run, task, questions[number], worked(task, questions, examples, number, k))
                for number in numbers
            ]
            shown = sum(each.shots for each in asked) / len(asked)
            about = {"task": task.name, "asked": k, "shots": int(shown) if shown == int(shown) else shown}
            rows.append({**about, **score(run, task, asked), "cut": sum(each.cut for each in asked)})
            prompts[task.name] = asked[0].question.answered
    return {"rows": rows, "prompts": prompts}


def spread_evenly(total: int, count: int) -> list[int]:
    """`count` numbers below `total`, evenly spread; all of them if there are no more than `count`."""
    if count >= total:
        return list(range(total))
    return [i * total // count for i in range(count)]


def worked(
    task: Task, questions: Sequence[Question], examples: Sequence[Question], number: int, shots: int
) -> list[str]:
    """`shots` worked examples for a question, other than itself, drawn by its number. Raises SanbuError for too few."""
    if shots == 0:
        return []
    others = [i for i in range(len(examples)) if examples[i] != questions[number]]
    if not 0 < shots <= len(others):
        raise SanbuError(f"--shots: given {shots}, allowed for {task.name}: 0 to {len(others)}, its other questions")
    others.sort(key=lambda i: key("shots", number, i))
    return [examples[i].answered for i in others[:shots]]


class Prompted:
    """A question behind as many of its worked examples as fit into the model's context, the last ones.

    pairs: the ids of the prompt and of each option. cut: whether the beginning of the question itself does not fit.
    Raises SanbuError for an option that does not fit, since its likelihood cannot be compared.
    """

    def __init__(self, run: Run, task: Task, question: Question, examples: Sequence[str]) -> None:
        model: Any = run.model
        for first in range(len(examples) + 1):
            shown = [*examples[first:], question.prompt]
            self.question = Question("\n\n".join(shown), question.options, question.right)
            self.pairs = [split(run, self.question.prompt, option) for option in question.options]
            if max(len(before) + len(after) for before, after in self.pairs) <= model.context + 1:
                break
        self.shots, longest = len(examples) - first, max(len(after) for _, after in self.pairs)
        self.cut = max(len(before) + len(after) for before, after in self.pairs) > model.context + 1
        if longest > model.context:
            said = f"an option of {longest} tokens is longer than the model's context of {model.context}"
            raise SanbuError(f"--tasks: {task.name}: {said}: {question.options[0][:40]!r}")


def score(run: Run, task: Task, asked: Sequence[Prompted]) -> dict[str, Any]:
    """Accuracy with its standard error, and accuracy by log-likelihood per byte (normalised)."""
    pairs = [pair for each in asked for pair in each.pairs]
    scored = iter(loglikelihoods(run, pairs, task.name))
    right, normalised, chance = 0, 0, 0.0
    for question in (each.question for each in asked):
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
    total = len(asked)
    accuracy = right / total
    return {
        "accuracy": accuracy,
        "error": (accuracy * (1 - accuracy) / max(1, total - 1)) ** 0.5,
        "normalised": normalised / total if task.kind != "text" else accuracy,
        "chance": chance / total,
        "questions": total,
    }

"""Tasks of zero-shot and few-shot evaluation: a small JSON file says how the records of another become questions.

A record that does not read is refused with its row. Choices with the same text are one choice, and a record whose
choices are all the same asks nothing and is left out.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sanbu.config import Config, SanbuError, load, nearest
from sanbu.data.record_files import rows_of
from sanbu.files import read_object

TASKS = Path(__file__).parent / "tasks"
Fields = dict[str, Any]


class Task(Config):
    """How a record becomes a question.

    kind "choice": field `choices` of a record is a list, and field `answer` names the right one: its index from 0, its
    letter from A, or its text. "text": the model predicts the last word of field `text`. "pair": field `good` is
    compared with field `bad`. In `prompt` and `choice`, {field} is replaced by a field of the record and {choice} by
    one of its choices.
    """

    name: str = Field(min_length=1)
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

    @model_validator(mode="after")
    def _templates(self) -> Self:
        check_template("prompt", self.prompt)
        if "choice" not in check_template("choice", self.choice):
            raise ValueError(f"choice: given {self.choice!r}, but it needs {{choice}}")
        return self


@dataclass(frozen=True)
class Question:
    """A prompt, its possible continuations, and the index of the right one. Of a pair, both whole texts are options."""

    prompt: str
    options: tuple[str, ...]
    right: int

    @property
    def answered(self) -> str:
        """The prompt followed by the right answer."""
        return self.prompt + self.options[self.right]


def find(name: str) -> Task:
    """The task of that name or in that file. Raises SanbuError with the nearest match."""
    known = {path.stem: path for path in TASKS.glob("*.json")}
    path = known.get(name, Path(name))
    if not path.is_file():
        names = ", ".join(sorted(known))
        raise SanbuError(f"--tasks: unknown task {name!r}; tasks: {names}{nearest(name, known)}; or give a task file")
    return load(Task, read_object(path), f"--tasks: {path}")


def read_questions(task: Task, name: str, folder: Path) -> list[Question]:
    """The questions in a file of a task. Raises SanbuError for a missing file, and for a bad record with its row."""
    path = folder / name
    if not path.is_file():
        raise SanbuError(
            f"--tasks: {task.name} reads {path}, which is not there; set --folder to the directory with the task files"
        )
    found = []
    for where, record in rows_of(path):
        try:
            question = question_of(task, record)
        except ValueError as error:
            raise SanbuError(f"--tasks: {task.name}: {where}: {error}") from None
        if len(question.options) > 1 or task.kind == "text":
            found.append(question)
    if not found:
        raise SanbuError(f"--tasks: {task.name}: {path} has no record that asks a question")
    return found


def question_of(task: Task, record: Fields) -> Question:
    """A record as a question. Raises ValueError for fields that are missing or of another type."""
    if task.kind == "pair":
        return distinct("", [text_of(record, task.good), text_of(record, task.bad)], 0)
    if task.kind == "text":
        text = text_of(record, task.text).rstrip()
        before = text[: len(text) - len(text.split()[-1])].rstrip()
        if not before:
            raise ValueError(f"the field {task.text!r} has one word, but two are needed")
        return Question(before, (text[len(before) :],), 0)
    choices = field(record, task.choices)
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError(f"the field {task.choices!r} is {brief(choices)}, but a list of two or more choices is needed")
    texts = [text_of({task.choices: choice}, task.choices) for choice in choices]
    options = [fill(task.choice, record | {"choice": text}) for text in texts]
    return distinct(fill(task.prompt, record), options, right_choice(field(record, task.answer), choices))


def distinct(prompt: str, options: Sequence[str], right: int) -> Question:
    """A question with each option once."""
    each = tuple(dict.fromkeys(options))
    return Question(prompt, each, each.index(options[right]))


def right_choice(answer: Any, choices: Sequence[Any]) -> int:
    """The index of the choice that an answer names. Raises ValueError if it names none, or several."""
    found = {index for index in readings(answer, choices) if 0 <= index < len(choices)}
    named = {str(choices[index]): index for index in found}
    last = f"{len(choices) - 1}, A to {string.ascii_uppercase[min(len(choices), 26) - 1]}"
    if not named:
        raise ValueError(f"the answer {brief(answer)} names no choice; allowed: 0 to {last}, or the text of a choice")
    if len(named) > 1:
        one, other = list(named)[:2]
        raise ValueError(f"the answer {brief(answer)} may be the choice {one!r} or {other!r}; give its letter")
    return named.popitem()[1]


def readings(answer: Any, choices: Sequence[Any]) -> Iterator[int]:
    """Every way to read an answer: as index, as letter, as text or as number of a choice."""
    if isinstance(answer, str):
        word = answer.strip()
        if word.isascii() and word.isdecimal():
            yield int(word)
        if len(word) == 1 and word in string.ascii_letters:
            yield string.ascii_uppercase.index(word.upper())
        yield from (i for i, choice in enumerate(choices) if isinstance(choice, str) and choice.strip() == word)
    elif isinstance(answer, (int, float)) and not isinstance(answer, bool):
        if answer == answer // 1:
            yield int(answer)
        yield from (i for i, choice in enumerate(choices) if not isinstance(choice, str) and choice == answer)


def field(record: Fields, name: str) -> Any:
    """A field of a record. Raises ValueError if there is none."""
    if name not in record:
        raise ValueError(f"there is no field {name!r}; fields: {', '.join(record)}{nearest(name, record)}")
    return record[name]


def text_of(record: Fields, name: str) -> str:
    """A field as text that is not blank. Raises ValueError."""
    text = fill(f"{{{name}}}", record)
    if not text.strip():
        raise ValueError(f"the field {name!r} has the blank text {text!r}")
    return text


def fill(template: str, record: Fields) -> str:
    """A template with the fields of a record, which are texts or numbers. Raises ValueError."""
    parts = []
    for before, name, _, _ in string.Formatter().parse(template):
        parts.append(before)
        if name is None:
            continue
        value = field(record, name)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(f"the field {name!r} has the value {brief(value)}, but text or a number is needed")
        parts.append(str(value).encode("utf-8", "replace").decode())
    return "".join(parts)


def check_template(name: str, template: str) -> list[str]:
    """The fields of a template. Raises ValueError for what is no plain {field}."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{name}: given {template!r}: {error}; write {{{{ for a brace") from None
    fields = [part for part in parts if part[1] is not None]
    if any(not field or spec or conversion for _, field, spec, conversion in fields):
        raise ValueError(f"{name}: given {template!r}, but only names of fields may stand in braces")
    return [str(part[1]) for part in fields]


def brief(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

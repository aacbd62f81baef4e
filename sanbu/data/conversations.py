"""Conversations, preferences and prompts as records: from files, the Hugging Face hub, and the built-in skills.

Files are read in `record_files.py`, the formats of a record in `conversation_formats.py`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sanbu.codecs.chat import Message
from sanbu.data import sources
from sanbu.data.builtin import skills
from sanbu.data.builtin.question import Draws, Question
from sanbu.data.conversation_formats import Record, read_record
from sanbu.data.record_files import Row, rows_of, with_records
from sanbu.files import fingerprint as hash_files


def user_prompt(question: str) -> tuple[Message, ...]:
    """A question as a conversation of one message."""
    return ({"role": "user", "content": question},)


def records(path: str, left_out: Counter[str] | None = None) -> Iterator[Record]:
    """The records of one path, or of several separated by commas. Raises ConversationError or SourceError.

    left_out: counts the files of folders that are not read, by reason.
    """
    for part in split_paths(path):
        if sources.built_in(part, "skills"):
            yield from skill_records()
        else:
            yield from (read_record(row, where) for where, row in rows(part, left_out))


def rows(path: str, left_out: Counter[str] | None = None) -> Iterator[tuple[str, Row]]:
    """(where, record) of each record of a file, of a folder or of hub:NAME. Raises SourceError."""
    if path.startswith("hub:"):
        yield from sources.read_hub(path.removeprefix("hub:"))
        return
    found, skipped = record_files(path)
    if left_out is not None:
        left_out.update(skipped)
    for file in found:
        yield from rows_of(file)


def record_files(path: str) -> tuple[list[Path], Counter[str]]:
    """The file of a path, or the files of a folder that have records; and a count of the others. Raises SourceError."""
    found = sources.files(path)
    return with_records(found, path) if Path(path).is_dir() else (found, Counter())


def split_paths(path: str) -> list[str]:
    """One path, or several separated by commas; a comma in the name of a file that exists separates nothing."""
    parts, found = path.split(","), []
    while parts:
        sizes = range(len(parts), 1, -1)
        size = next((size for size in sizes if Path(",".join(parts[:size]).strip()).exists()), 1)
        found.append(",".join(parts[:size]).strip())
        parts = parts[size:]
    return found


def full_names(path: str) -> str:
    """The paths with builtin:skills for skills, where it names what ships with Sanbu."""
    return ",".join(sources.full_name(part, "skills") for part in split_paths(path))


@lru_cache
def skill_records() -> tuple[Record, ...]:
    """The records of the built-in skills."""
    return tuple(map(skill_record, range(skills.COUNT)))


def skill_record(number: int) -> Record:
    """A question of the built-in skills with four answers: right, rambling, a near miss, that of another question.

    Half of the wrong answers ramble as well and are ranked last. If only right answers did, a reward model could learn
    that long answers are right.
    """
    found = skills.questions()[number]
    draws, words = Draws(number, "answers"), Draws(number, "words")
    rambling = skills.ramble(found, draws)
    wrong = [skills.near_miss(found, draws), skills.other_answer(found, draws)]
    wrong = [skills.maybe_ramble(text, words) for text in wrong]
    demonstration = skills.demonstration(found, draws)
    wrong_ranks = [3 if text.startswith(skills.PREAMBLES) else 2 for text in wrong]
    return Record(
        prompt=(*earlier_turns(found), *user_prompt(found.text)),
        answers=(found.answer, rambling, *wrong),
        ranks=(0, 1, *wrong_ranks),
        answer=found.answer,
        where=f"skills, question {number}",
        demonstration=demonstration,
        group=found.first,
    )


def earlier_turns(found: Question) -> Iterator[Message]:
    """The earlier questions of a conversation with their right answers."""
    for question, answer in found.before:
        yield {"role": "user", "content": question}
        yield {"role": "assistant", "content": answer}


def fingerprint(path: str) -> str:
    """A hash of the content of a path, or of several separated by commas."""
    return ",".join(fingerprint_of(part) for part in split_paths(path))


def fingerprint_of(path: str) -> str:
    """A hash of the content of one path; for the hub, of its name."""
    if sources.built_in(path, "skills"):
        from sanbu.data.builtin.stdlib_docs import version

        return hashlib.sha256(f"skills 4 {skills.COUNT} {version()}".encode()).hexdigest()
    return hash_files((), path) if path.startswith("hub:") else hash_files(record_files(path)[0])

"""Conversations, preferences and prompts as records: from files, and from the built-in skills.

The formats of a record in a file are read in `conversation_formats.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sanbu.codecs.chat import ConversationError, Message
from sanbu.data import sources
from sanbu.data.builtin import skills
from sanbu.data.conversation_formats import Record, check_record, read_record


def user_prompt(question: str) -> tuple[Message, ...]:
    """A question as a conversation of one message."""
    return ({"role": "user", "content": question},)


def records(path: str) -> Iterator[Record]:
    """The records of one path, or of several separated by commas. Raises ConversationError or SourceError."""
    if "," in path:
        for part in path.split(","):
            yield from records(part.strip())
        return
    if path == "skills":
        yield from (skill_record(number) for number in range(skills.COUNT))
        return
    for file in sources.files(path):
        for number, value in lines(file):
            yield read_record(value, f"{file}, line {number}")


def skill_record(number: int) -> Record:
    """A question of the built-in skills with four answers: right, rambling, a near miss, that of another question.

    Half of the wrong answers ramble as well and are ranked last. If only right answers did, a reward model could learn
    that long answers are right.
    """
    found = skills.questions()[number]
    draws, words = skills.Draws(number, "answers"), skills.Draws(number, "words")
    rambling = skills.ramble(found, draws)
    wrong = [skills.near_miss(found, draws), skills.other_answer(found, draws)]
    wrong = [skills.maybe_ramble(text, words) for text in wrong]
    demonstration = skills.demonstration(found, draws)
    wrong_ranks = [3 if text.startswith(skills.PREAMBLES) else 2 for text in wrong]
    return Record(
        prompt=user_prompt(found.text),
        answers=(found.answer, rambling, *wrong),
        ranks=(0, 1, *wrong_ranks),
        answer=found.answer,
        where=f"skills, question {number}",
        demonstration=demonstration,
    )


def fingerprint(path: str) -> str:
    """A hash of the content of a path, or of several separated by commas."""
    if "," in path:
        return ",".join(fingerprint(part.strip()) for part in path.split(","))
    if path != "skills":
        return sources.fingerprint(path)
    from sanbu.data.builtin.stdlib_docs import version

    return hashlib.sha256(f"skills 3 {skills.COUNT} {version()}".encode()).hexdigest()


def lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a JSONL file, or of a JSON file with a list, with their numbers from 1."""
    text = sources.decode_text(file, sources.read_unzipped(file))
    if text.lstrip().startswith("[") and file.suffixes[-1:] not in ([".jsonl"], [".ndjson"]):
        for number, value in enumerate(parse_json(text, f"{file}"), 1):
            yield number, check_record(value, f"{file}, record {number}")
        return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON strings may contain U+2028 and U+0085
        if line.strip():
            yield number, check_record(parse_json(line, f"{file}, line {number}"), f"{file}, line {number}")


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text. Raises ConversationError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConversationError(f"{where}: not JSON") from None

"""The file of rankings, a JSON object per line, and what its rankings say. People also edit the file by hand."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, TypeAdapter, ValidationError, model_validator

from sanbu.config import SanbuError
from sanbu.files import replace_atomically

Row = dict[str, Any]


class Message(BaseModel):
    """A message of a conversation."""

    role: str
    content: str


class Ranking(BaseModel):
    """A line of the file. ranks: of each answer, 0 = best. runs: who wrote each answer; may be left out."""

    messages: list[Message]
    answers: list[str]
    ranks: list[int]
    runs: list[list[str]] | None = None

    @model_validator(mode="after")
    def whole(self) -> Ranking:
        """Every answer has a rank, and there is a question."""
        lengths = {len(self.answers), len(self.ranks), len(self.runs or self.answers)}
        if not self.messages or not self.answers or len(lengths) > 1:
            raise ValueError("messages, answers, ranks and runs do not fit together")
        return self


RANKING = TypeAdapter(Ranking)


def parse(line: bytes) -> Row | None:
    """The ranking of a line, None if it is none."""
    try:
        RANKING.validate_json(line)
    except ValidationError:
        return None
    row: Row = json.loads(line)
    row["runs"] = row.get("runs") or [[] for _ in row["answers"]]
    return row


def scan(file: Path) -> tuple[list[Row], list[int]]:
    """The rankings of a file, and the numbers, from 1, of the lines that are none."""
    content = file.read_bytes() if file.exists() else b""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    rows = {number: parse(line) for number, line in enumerate(lines, 1) if line.strip()}
    torn = [number for number, row in rows.items() if row is None]
    return [row for row in rows.values() if row is not None], torn


def read(file: Path) -> list[Row]:
    """All rankings that can be read."""
    return scan(file)[0]


def append(file: Path, row: Row) -> None:
    """Append a row atomically, on a line of its own; safe when several people save at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(file) + ".lock"):
        before = file.read_bytes() if file.exists() else b""
        if before and not before.endswith(b"\n"):
            before += b"\n"  # an editor left the last line without an end
        replace(file, before + line_of(row))


def take_back(file: Path, row: Row) -> bool:
    """Remove the last line that holds exactly this row. False if there is none any more."""
    with FileLock(str(file) + ".lock"):
        before = file.read_bytes() if file.exists() else b""
        head, found, tail = (b"\n" + before).rpartition(b"\n" + line_of(row))
        if found:
            replace(file, (head + b"\n" + tail).removeprefix(b"\n"))
        return bool(found)


def line_of(row: Row) -> bytes:
    """A row as a line."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def replace(file: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replace_atomically(file) as temporary:
        temporary.write_bytes(content)


# -- an order, as a person types it or clicks it together --------------------------------------------------------------


def groups_of(text: str) -> list[list[str]]:
    """The numbers of `2 1=3`, best first, ties together. Full-width digits and signs are read as plain ones."""
    plain = unicodedata.normalize("NFKC", text)
    parts = re.sub(r"\s*=\s*", "=", re.sub(r"[,>、;]", " ", plain)).split()
    return [part.split("=") for part in parts]


def read_order(text: str, count: int) -> list[int]:
    """Parse `2 1=3` into the rank of each answer, 0 = best. Raises SanbuError unless every number occurs once."""
    groups = groups_of(text)
    given = [number for group in groups for number in group]
    if sorted(given) != sorted(str(i + 1) for i in range(count)):
        example = " ".join(map(str, range(count, 0, -1)))
        raise SanbuError(
            f"given {text!r}; enter each number from 1 to {count} once, best first, for example {example!r}"
        )
    ranks = {number: rank for rank, group in enumerate(groups) for number in group}
    return [ranks[str(i + 1)] for i in range(count)]


def places(text: str) -> dict[int, int]:
    """The place of each answer that an order names so far, from 1."""
    numbered = [(number, rank) for rank, group in enumerate(groups_of(text), 1) for number in group]
    return {int(number): rank for number, rank in reversed(numbered) if number.isdigit()}


def with_next(text: str, number: int) -> str:
    """An order with one more answer at its end; unchanged if it has it already."""
    if number in places(text):
        return text
    return f"{text.rstrip()}{'' if not text.strip() or text.rstrip().endswith('=') else ' '}{number}"


def with_tie(text: str) -> str:
    """An order whose next answer ties with its last."""
    return text.rstrip() + "=" if text.rstrip()[-1:].isdigit() else text


def without_last(text: str) -> str:
    """An order without the last answer, or without an open tie."""
    plain = unicodedata.normalize("NFKC", text).rstrip()
    return re.sub(r"[\s=>,、;]*\d+$", "", plain) if plain[-1:].isdigit() else plain.rstrip("=>,、; \t")


# -- what rankings say -------------------------------------------------------------------------------------------------


def preferences(rows: Iterable[Row]) -> Counter[tuple[str, str, str]]:
    """How often each (question, better, worse) was judged, without ties."""
    return Counter(
        (json.dumps(row["messages"]), *((one, other) if i < j else (other, one)))
        for row in rows
        for (one, i), (other, j) in combinations(zip(row["answers"], row["ranks"], strict=True), 2)
        if i != j
    )


def agreement(rows: Iterable[Row]) -> tuple[float, int]:
    """The fraction of agreeing judgements among all two judgements of the same pair, and their number."""
    judged = preferences(rows)
    alike = sum(count * (count - 1) // 2 for count in judged.values())
    unlike = sum(count * judged[question, worse, better] for (question, better, worse), count in judged.items()) // 2
    return alike / max(1, alike + unlike), alike + unlike


def win_counts(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """Per run: comparisons won against other runs, and comparisons."""
    wins, pairs = Counter[str](), Counter[str]()
    for row in rows:
        for (one, i), (other, j) in combinations(zip(row["runs"], row["ranks"], strict=True), 2):
            if i != j:
                for name in {*one} ^ {*other}:
                    pairs[name] += 1
                    wins[name] += (name in one) == (i < j)
    return {name: (wins[name], pairs[name]) for name in sorted(pairs)}


def authors(row: Row) -> str:
    """Who wrote the answers of a row, best first."""
    best: Sequence[tuple[int, list[str]]] = sorted(
        zip(row["ranks"], row["runs"], strict=True), key=lambda pair: pair[0]
    )
    return " > ".join("+".join(names) for _, names in best)

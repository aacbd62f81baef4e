"""Conversations of the chat tab: questions, and the versions of the answer to each. The browser keeps them as JSON."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

JOINER = "\u2060"
Message = dict[str, Any]


class Version(BaseModel):
    """One answer. finish: why it ended, None while it is written. seconds: from the question to the end.

    temperature: with which it was sampled, None for the run's own.
    """

    text: str = ""
    seed: int = 0
    temperature: float | None = None
    finish: str | None = None
    tokens: int = 0
    seconds: float = 0.0


class Turn(BaseModel):
    """A question and the versions of its answer. shown: the position of the version that counts."""

    question: str
    versions: list[Version] = Field(default_factory=list)
    shown: int = 0

    @property
    def answer(self) -> Version | None:
        """The version that counts; None as long as there is no answer."""
        return self.versions[self.shown % len(self.versions)] if self.versions else None

    def messages(self) -> list[Message]:
        """The question and its answer; nothing if there is no answer."""
        if self.answer is None or not self.answer.text:
            return []
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer.text}]

    def begin(self, seed: int) -> Version:
        """A new, empty version with the first seed from `seed` on that no other version has. It is shown."""
        used = {version.seed for version in self.versions}
        made = Version(seed=next(number for number in count(seed) if number not in used))
        self.versions.append(made)
        self.shown = len(self.versions) - 1
        return made

    def drop(self, version: Version) -> None:
        """Take a version out again, because it has no text."""
        self.versions = [one for one in self.versions if one is not version]
        self.shown = max(0, len(self.versions) - 1)

    def page(self, step: int) -> None:
        """Show another version; the first follows the last."""
        self.shown = (self.shown + step) % max(1, len(self.versions))


Turns = list[Turn]
Kept = dict[str, Turns]
KEPT = TypeAdapter(Kept)


def read_kept(text: str) -> Kept:
    """The conversation with each run; empty for a text that is not one."""
    try:
        return KEPT.validate_json(text)
    except ValidationError:
        return {}


def write_kept(kept: Kept) -> str:
    """The conversations as JSON; runs without one are left out."""
    return KEPT.dump_json({name: turns for name, turns in kept.items() if turns}).decode()


def shown_messages(turns: Sequence[Turn]) -> list[Message]:
    """What the page shows. A word joiner stands wherever the browser could parse a tag or an entity."""
    made = []
    for turn in turns:
        texts = [("user", turn.question)]
        if turn.answer is not None:
            texts.append(("assistant", turn.answer.text))
        made += [{"role": role, "content": [{"type": "text", "text": escaped(text)}]} for role, text in texts]
    return made


def escaped(text: str) -> str:
    """A text in which no browser finds markup."""
    return re.sub(r"[<&](?=\S)", rf"\g<0>{JOINER}", text)


def turn_of(turns: Sequence[Turn], place: int) -> int:
    """The turn that a shown message belongs to."""
    owners = [number for number, turn in enumerate(turns) for _ in range(1 + bool(turn.versions))]
    return owners[place]


def prompt_messages(turns: Sequence[Turn], remember: bool) -> list[Message]:
    """The last question after the earlier turns; a turn without an answer is left out."""
    made: list[Message] = []
    for turn in turns[:-1] if remember else ():
        made += turn.messages()
    return [*made, {"role": "user", "content": turns[-1].question}]


def exported(kept: Mapping[str, Turns], system: str) -> str:
    """The answered turns as a JSON array, a record with `messages` per run, as `sanbu train sft` reads them."""
    before = [{"role": "system", "content": system}] if system else []
    records = []
    for name, turns in kept.items():
        messages = [message for turn in turns for message in turn.messages()]
        if messages:
            records.append({"model": name, "messages": before + messages})
    return json.dumps(records, ensure_ascii=False, indent=1) + "\n"


def download_link(content: str, text: str) -> str:
    """A link that saves a JSON text as a file, without asking the server. text: what the link says."""
    address = base64.b64encode(content.encode()).decode()
    return f'<a class="save" download="conversation.json" href="data:application/json;base64,{address}">{text}</a>'

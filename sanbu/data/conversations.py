"""Conversations, preferences and prompts from files in common formats, and from the built-in skills.

Read as they are: OpenAI {"messages": [...]}, ShareGPT {"conversations": [{"from", "value"}]}, Alpaca {"instruction",
"input", "output"}, {"prompt", "completion"}; preferences {"prompt" or "messages", "chosen", "rejected"}, Anthropic's
whole dialogues in chosen and rejected, and rankings {"prompt", "answers", "ranks"}.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanbu.codecs.chat import ConversationError, Message, checked
from sanbu.data import sources
from sanbu.data.builtin import skills
from sanbu.noise import mix_int

NAMES = {"human": "user", "gpt": "assistant", "bing": "assistant", "chatgpt": "assistant", "tool": "system"}
FOUND = "messages, conversations, instruction, prompt, or chosen and rejected"


@dataclass(frozen=True)
class Record:
    """A conversation so far, and answers to it with their ranks: 0 is the best, equal ranks are ties.

    demonstration: the answer to imitate, where it is not the best one. answer: what a function knows to be right, for
    checking; empty where nothing is known. margin: how much better the better ones are.
    """

    prompt: tuple[Message, ...]
    answers: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    answer: str = ""
    margin: float = 0.0
    where: str = field(default="", compare=False)
    demonstration: str = ""

    @property
    def held_out_chance(self) -> float:
        """A number in [0, 1) that only the question decides: the last thing the user said."""
        digest = hashlib.blake2b(self.prompt[-1]["content"].encode(), digest_size=8).digest()
        return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)


def asked(question: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": question},)


def records(path: str) -> Iterator[Record]:
    """Every record of one path, or of several separated by commas. Raises ConversationError or SourceError."""
    if "," in path:
        for part in path.split(","):
            yield from records(part.strip())
        return
    if path == "skills":
        yield from (skilled(number) for number in range(skills.COUNT))
        return
    for file in sources.files(path):
        for number, value in lines(file):
            yield read(value, f"{file}, line {number}")


def skilled(number: int) -> Record:
    """A question of the built-in skills with answers: right, rambling, a near miss, and another question's.

    Wrong answers ramble too, and then are last: if only right ones did, a reward model would learn that long is
    right.
    """
    found = skills.questions()[number]
    draws, words = skills.Draws(number, "answers"), skills.Draws(number, "words")
    rambling, *wrong = (make(found, draws) for make in (skills.rambling, skills.near_miss, skills.elsewhere))
    wrong = [skills.wordy(text, words) for text in wrong]
    shown = skills.demonstration(found, draws)
    ranks = (0, 1, *(3 if text.startswith(skills.PREAMBLES) else 2 for text in wrong))
    answers = (found.answer, rambling, *wrong)
    return Record(asked(found.text), answers, ranks, found.answer, 0.0, f"skills, question {number}", shown)


def fingerprint(path: str) -> str:
    """A hash of what a path holds."""
    if "," in path:
        return ",".join(fingerprint(part.strip()) for part in path.split(","))
    if path != "skills":
        return sources.fingerprint(path)
    from sanbu.data.builtin.stdlib_docs import version

    return hashlib.sha256(f"skills 3 {skills.COUNT} {version()}".encode()).hexdigest()


def lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a JSONL file, or of a JSON file that is a list, with their numbers."""
    text = sources.plain(file, sources.unpacked(file))
    if text.lstrip().startswith("["):
        yield from enumerate(parsed(text, f"{file}"), 1)
        return
    for number, line in enumerate(text.split("\n"), 1):  # and not at U+2028 or U+0085, which JSON may hold as they are
        if line.strip():
            value = parsed(line, f"{file}, line {number}")
            if not isinstance(value, dict):
                raise ConversationError(f"{file}, line {number}: not a record but {type(value).__name__}")
            yield number, value


def parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ConversationError(f"{where}: not JSON") from None


def read(value: dict[str, Any], where: str) -> Record:
    """One record, whatever of the known shapes it has."""
    if "answers" in value:
        return ranking(value, where)
    if "chosen" in value and "rejected" in value:
        return preference(value, where)
    messages = conversation(value, where)
    if not messages or messages[-1]["role"] != "assistant":
        return Record(tuple(messages), answer=str(value.get("answer", "")), where=where)
    *before, last = messages
    return Record(tuple(before), (last["content"],), (0,), str(value.get("answer", "")), where=where)


def conversation(value: dict[str, Any], where: str) -> list[Message]:
    """The messages of a record."""
    if "messages" in value:
        return checked(listed(value["messages"], where), where)
    if "conversations" in value:
        turns = listed(value["conversations"], where)
        named = [{"role": NAMES.get(str(t.get("from")), str(t.get("from"))), "content": t.get("value")} for t in turns]
        return checked(named, where)
    if "instruction" in value:
        question = "\n\n".join(str(value[name]) for name in ("instruction", "input") if value.get(name))
        return both(question, value.get("output"), where)
    if "prompt" in value:
        prompt = value["prompt"]
        if isinstance(prompt, list):
            return checked([*prompt, *listed(value.get("completion", []), where)], where)
        return both(prompt, value.get("completion"), where)
    raise ConversationError(
        f"{where}: no conversation here; fields: {', '.join(value)}; one of these is needed: {FOUND}"
    )


def both(question: Any, answer: Any, where: str) -> list[Message]:
    messages = [{"role": "user", "content": question}]
    return checked(messages if answer is None else [*messages, {"role": "assistant", "content": answer}], where)


def listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConversationError(f"{where}: messages must be a list of records with role and content")
    return value


def preference(value: dict[str, Any], where: str) -> Record:
    """A chosen and a rejected answer. Raises ConversationError when they are equal."""
    chosen, rejected = value["chosen"], value["rejected"]
    if (
        isinstance(chosen, str)
        and isinstance(rejected, str)
        and not {"messages", "prompt", "instruction"} & value.keys()
    ):
        chosen, rejected = dialogue(chosen, where), dialogue(rejected, where)
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen, rejected = checked(listed(chosen, where), where), checked(listed(rejected, where), where)
        before = conversation(value, where) if {"messages", "prompt"} & value.keys() else []
        shared = [*before, *chosen[:-1]]
        last, other = chosen[-1]["content"], rejected[-1]["content"]
    else:
        shared, last, other = conversation(value, where), chosen, rejected
    if not isinstance(last, str) or not isinstance(other, str):
        raise ConversationError(f"{where}: chosen and rejected must both be text or both be lists of messages")
    if last == other:
        raise ConversationError(
            f"{where}: chosen and rejected are equal: {last[:60]!r}; a tie is written as ranks [0, 0]"
        )
    return Record(
        tuple(shared), (last, other), (0, 1), str(value.get("answer", "")), float(value.get("margin", 0.0)), where
    )


def dialogue(text: str, where: str) -> list[Message]:
    """A whole dialogue in one text, as Anthropic keeps it: Human: and Assistant: begin a turn."""
    messages: list[Message] = []
    for part in text.split("\n\n"):
        for mark, role in (("Human:", "user"), ("Assistant:", "assistant")):
            if part.startswith(mark):
                messages.append({"role": role, "content": part.removeprefix(mark).strip()})
                break
        else:
            if messages:
                messages[-1]["content"] += "\n\n" + part
    return checked(messages, where)


def ranking(value: dict[str, Any], where: str) -> Record:
    """Answers with their ranks; without ranks, the best comes first."""
    answers = value["answers"]
    ranks = value.get("ranks", list(range(len(answers))))
    if not isinstance(answers, list) or len(answers) < 2 or len(ranks) != len(answers):
        raise ConversationError(f"{where}: a ranking needs two answers or more, and a rank for each")
    pairs = list(zip(answers, ranks, strict=True))
    if any(a == b and i != j for number, (a, i) in enumerate(pairs) for b, j in pairs[:number]):
        raise ConversationError(f"{where}: two equal answers have different ranks")
    margin = float(value.get("margin", 0.0))
    prompt = tuple(conversation(value, where))
    return Record(prompt, tuple(answers), tuple(map(int, ranks)), str(value.get("answer", "")), margin, where)

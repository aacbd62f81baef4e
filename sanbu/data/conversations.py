"""Conversations, preferences and prompts from files in common formats, and from the built-in skills.

Conversations: OpenAI {"messages": [...]}, ShareGPT {"conversations": [{"from", "value"}]}, Alpaca {"instruction",
"input", "output"}, {"prompt", "completion"}. Preferences: {"prompt" or "messages", "chosen", "rejected"}, Anthropic
HH-RLHF, with a whole dialogue in chosen and in rejected, and rankings {"prompt", "answers", "ranks"}.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanbu.codecs.chat import ConversationError, Message, check_messages
from sanbu.data import sources
from sanbu.data.builtin import skills
from sanbu.noise import mix_int

NAMES = {"human": "user", "gpt": "assistant", "bing": "assistant", "chatgpt": "assistant", "tool": "system"}
FIELDS = "messages, conversations, instruction, prompt, or chosen and rejected"


@dataclass(frozen=True)
class Record:
    """A conversation and the answers to it with their ranks: 0 is the best, equal ranks are ties.

    answer: the known right answer, or empty. margin: by how much better answers are preferred. where: file and line,
    for error messages. demonstration: the answer to imitate, or empty for the best one.
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
        """A hash of the question, which is the last message, as a number in [0, 1)."""
        digest = hashlib.blake2b(self.prompt[-1]["content"].encode(), digest_size=8).digest()
        return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)


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
    if text.lstrip().startswith("["):
        yield from enumerate(parse_json(text, f"{file}"), 1)
        return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON strings may contain U+2028 and U+0085
        if line.strip():
            value = parse_json(line, f"{file}, line {number}")
            if not isinstance(value, dict):
                raise ConversationError(f"{file}, line {number}: a record is needed, not {type(value).__name__}")
            yield number, value


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text. Raises ConversationError."""
    try:
        return json.loads(text)
    except ValueError:
        raise ConversationError(f"{where}: not JSON") from None


def read_record(value: dict[str, Any], where: str) -> Record:
    """A record in any of the known formats. Raises ConversationError."""
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
    """The messages of a record in any of the known formats. Raises ConversationError."""
    if "messages" in value:
        return check_messages(check_list(value["messages"], where), where)
    if "conversations" in value:
        messages = []
        for turn in check_list(value["conversations"], where):
            name = str(turn.get("from"))
            messages.append({"role": NAMES.get(name, name), "content": turn.get("value")})
        return check_messages(messages, where)
    if "instruction" in value:
        question = "\n\n".join(str(value[name]) for name in ("instruction", "input") if value.get(name))
        return question_and_answer(question, value.get("output"), where)
    if "prompt" in value:
        prompt = value["prompt"]
        if isinstance(prompt, list):
            return check_messages([*prompt, *check_list(value.get("completion", []), where)], where)
        return question_and_answer(prompt, value.get("completion"), where)
    raise ConversationError(f"{where}: no conversation; fields: {', '.join(value)}; one of these is needed: {FIELDS}")


def question_and_answer(question: Any, answer: Any, where: str) -> list[Message]:
    """A conversation of a question and, unless it is None, its answer."""
    messages = [{"role": "user", "content": question}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return check_messages(messages, where)


def check_list(value: Any, where: str) -> list[Any]:
    """The value, if it is a list of dictionaries. Raises ConversationError."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConversationError(f"{where}: messages must be a list of records with role and content")
    return value


def preference(value: dict[str, Any], where: str) -> Record:
    """A chosen and a rejected answer. Raises ConversationError when they are equal."""
    chosen, rejected = value["chosen"], value["rejected"]
    both_text = isinstance(chosen, str) and isinstance(rejected, str)
    if both_text and not {"messages", "prompt", "instruction"} & value.keys():
        chosen, rejected = dialogue(chosen, where), dialogue(rejected, where)
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen = check_messages(check_list(chosen, where), where)
        rejected = check_messages(check_list(rejected, where), where)
        before = conversation(value, where) if {"messages", "prompt"} & value.keys() else []
        prompt = [*before, *chosen[:-1]]
        better, worse = chosen[-1]["content"], rejected[-1]["content"]
    else:
        prompt, better, worse = conversation(value, where), chosen, rejected
    if not isinstance(better, str) or not isinstance(worse, str):
        raise ConversationError(f"{where}: chosen and rejected must both be text or both be lists of messages")
    if better == worse:
        raise ConversationError(
            f"{where}: chosen and rejected are equal: {better[:60]!r}; write a tie as answers with ranks [0, 0]"
        )
    answer, margin = str(value.get("answer", "")), float(value.get("margin", 0.0))
    return Record(tuple(prompt), (better, worse), (0, 1), answer, margin, where)


def dialogue(text: str, where: str) -> list[Message]:
    """The messages of a dialogue in the text format of HH-RLHF, where "Human:" and "Assistant:" begin a turn."""
    messages: list[Message] = []
    for part in text.split("\n\n"):
        for mark, role in (("Human:", "user"), ("Assistant:", "assistant")):
            if part.startswith(mark):
                messages.append({"role": role, "content": part.removeprefix(mark).strip()})
                break
        else:
            if messages:
                messages[-1]["content"] += "\n\n" + part
    return check_messages(messages, where)


def ranking(value: dict[str, Any], where: str) -> Record:
    """Answers with their ranks; without ranks, they are in order from the best. Raises ConversationError."""
    answers = value["answers"]
    ranks = value.get("ranks", list(range(len(answers))))
    if not isinstance(answers, list) or len(answers) < 2 or len(ranks) != len(answers):
        raise ConversationError(f"{where}: a ranking needs at least two answers, and one rank for each")
    pairs = list(zip(answers, ranks, strict=True))
    if any(a == b and i != j for number, (a, i) in enumerate(pairs) for b, j in pairs[:number]):
        raise ConversationError(f"{where}: two equal answers have different ranks; remove one of them")
    margin = float(value.get("margin", 0.0))
    prompt = tuple(conversation(value, where))
    return Record(prompt, tuple(answers), tuple(map(int, ranks)), str(value.get("answer", "")), margin, where)

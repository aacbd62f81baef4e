"""Records of conversations and preferences in the formats that people publish.

conversations  OpenAI {"messages"}, with "weight": 0 for an answer that is not taught; ShareGPT {"conversations":
               [{"from", "value"}]}; Alpaca {"instruction", "input", "output", "history"}; {"prompt", "completion"}.
               Each may have "system". KTO's "label": false marks an answer that is not taught.
preferences    {"chosen", "rejected"} with "prompt", "messages", "conversations" or "instruction"; each is a text, one
               turn, or a whole dialogue that repeats the prompt (UltraFeedback); HH-RLHF without a prompt.
rankings       {"answers"} with "ranks" (0 is best), or "scores" (highest is best), or in order from the best.

A record that cannot be represented is refused in one line: tools, pictures, dialogues that differ before the answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sanbu.codecs.chat import ConversationError, Message, check_messages
from sanbu.noise import mix_int

NAMES = {"human": "user", "gpt": "assistant", "bing": "assistant", "chatgpt": "assistant", "tool": "system"}
FIELDS = "messages, conversations, instruction, prompt, or chosen and rejected"
PROMPTS = ("messages", "conversations", "instruction", "prompt")
REFUSED = ("tools", "functions", "images", "videos", "audios")  # fields that change what is said


@dataclass(frozen=True)
class Record:
    """A conversation and the answers to it with their ranks: 0 is the best, equal ranks are ties.

    answer: the known right answer, or empty. margin: by how much better answers are preferred. where: file and line,
    for error messages. demonstration: the answer to imitate, or empty for the best one. left_out: why the record is not
    used, or empty.
    """

    prompt: tuple[Message, ...]
    answers: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    answer: str = ""
    margin: float = 0.0
    where: str = field(default="", compare=False)
    demonstration: str = ""
    left_out: str = field(default="", compare=False)

    @property
    def held_out_chance(self) -> float:
        """A hash of the question, which is the last message, as a number in [0, 1); of the answer without one."""
        text = self.prompt[-1]["content"] if self.prompt else "".join(self.answers)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)


def read_record(value: dict[str, Any], where: str) -> Record:
    """A record in any of the known formats. Raises ConversationError."""
    for name in REFUSED:
        if value.get(name):
            raise ConversationError(f"{where}: {name} are not supported; remove the field or the record")
    if "answers" in value:
        return ranking(value, where)
    if "chosen" in value or "rejected" in value:
        return preference(value, where)
    messages, answer = conversation(value, where), text_of(value.get("answer"))
    left_out = "label is false" if value.get("label") is False else ""
    if not messages or messages[-1]["role"] != "assistant" or messages[-1].get("weight") == 0:
        return Record(tuple(messages), answer=answer, where=where, left_out=left_out)
    *before, last = messages
    return Record(tuple(before), (last["content"],), (0,), answer, where=where, left_out=left_out)


def text_of(value: Any) -> str:
    """A field as text; None is empty."""
    return "" if value is None else str(value)


# -- conversations ----------------------------------------------------------------------------------------------------


def conversation(value: dict[str, Any], where: str) -> list[Message]:
    """The messages of a record in any of the known formats. Raises ConversationError."""
    name = next((name for name in PROMPTS if name in value), None)
    if name is None:
        raise ConversationError(
            f"{where}: no conversation; fields: {', '.join(value)}; one of these is needed: {FIELDS}"
        )
    if name == "instruction":
        found = alpaca(value, where)
    elif name == "prompt":
        found = prompt_and_completion(value, where)
    else:
        found = read_turns(value[name], where)
    system = text_of(value.get("system"))
    if system and (not found or found[0]["role"] != "system"):
        found = [{"role": "system", "content": system}, *found]
    return check_messages(found, where)


def read_turns(value: Any, where: str) -> list[Message]:
    """Turns of OpenAI (role, content, weight) or of ShareGPT (from, value)."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ConversationError(f"{where}: a list of messages is needed, each with role and content, or from and value")
    return [read_turn(turn, where) for turn in value]


def read_turn(turn: dict[str, Any], where: str) -> Message:
    """One turn as a message. Raises ConversationError for tool calls and for content that is not text."""
    if turn.get("tool_calls") or turn.get("function_call"):
        raise ConversationError(f"{where}: tool calls are not supported")
    if "from" in turn:
        name = str(turn["from"])
        return {"role": NAMES.get(name, name), "content": turn.get("value")}
    content = turn.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(text_of(part.get("text")) for part in content)
    message: Message = {"role": turn.get("role"), "content": content}
    if "weight" in turn:
        if turn["weight"] not in (0, 1):
            raise ConversationError(f"{where}: weight: given {turn['weight']!r}, allowed: 0 or 1")
        message["weight"] = turn["weight"]
    return message


def alpaca(value: dict[str, Any], where: str) -> list[Message]:
    """{"instruction", "input", "output", "history": [[question, answer], ...]}."""
    messages: list[Message] = []
    for pair in value.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ConversationError(f"{where}: history must be a list of pairs of a question and an answer")
        messages += question_and_answer(*pair)
    question = "\n\n".join(text_of(value[name]) for name in ("instruction", "input") if value.get(name))
    return messages + question_and_answer(question, value.get("output"))


def prompt_and_completion(value: dict[str, Any], where: str) -> list[Message]:
    """{"prompt", "completion"}, each a text or a list of messages."""
    prompt, completion = value["prompt"], value.get("completion")
    if isinstance(prompt, list):
        return read_turns(prompt, where) + (read_turns(completion, where) if completion is not None else [])
    return question_and_answer(prompt, completion)


def question_and_answer(question: Any, answer: Any) -> list[Message]:
    """A question and, unless it is None, its answer."""
    messages: list[Message] = [{"role": "user", "content": question}]
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


# -- preferences ------------------------------------------------------------------------------------------------------


def preference(value: dict[str, Any], where: str) -> Record:
    """A chosen and a rejected answer. Raises ConversationError when they are equal, or answer different dialogues."""
    missing = next((name for name in ("chosen", "rejected") if name not in value), None)
    if missing is not None:
        raise ConversationError(f"{where}: {missing} is missing; a preference needs chosen and rejected")
    before = conversation(value, where) if any(name in value for name in PROMPTS) else []
    chosen, rejected = (read_answer(value[name], before, where) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise ConversationError(f"{where}: chosen and rejected differ before the last message; they cannot be compared")
    better, worse = chosen[-1]["content"], rejected[-1]["content"]
    if better == worse:
        raise ConversationError(
            f"{where}: chosen and rejected are equal: {better[:60]!r}; write a tie as answers with ranks [0, 0]"
        )
    answer, margin = text_of(value.get("answer")), read_number(value.get("margin", 0.0), "margin", where)
    return Record(tuple(chosen[:-1]), (better, worse), (0, 1), answer, margin, where)


def read_answer(value: Any, before: Sequence[Message], where: str) -> list[Message]:
    """The whole dialogue that ends with an answer: a text, one turn, or a dialogue that may repeat the prompt."""
    if isinstance(value, str):
        turns = [{"role": "assistant", "content": value}] if before else dialogue(value)
    elif not isinstance(value, (dict, list)):
        raise ConversationError(f"{where}: chosen and rejected must each be a text, a turn or a list of turns")
    else:
        turns = check_messages(read_turns([value] if isinstance(value, dict) else value, where), where)
    if not turns or turns[-1]["role"] != "assistant":
        raise ConversationError(f"{where}: chosen and rejected must end with an answer of the assistant")
    prompt = list(before[:-1] if before and before[-1]["role"] == "assistant" and len(turns) > 1 else before)
    system = [message for message in prompt[:1] if message["role"] == "system" and turns[0]["role"] != "system"]
    if len(turns) == 1 or not prompt:
        return check_messages([*prompt, *turns], where)
    if [*system, *turns][: len(prompt)] == prompt:
        return [*system, *turns]
    if prompt[-1]["role"] == turns[0]["role"]:
        raise ConversationError(f"{where}: chosen or rejected neither repeats the prompt nor continues it")
    return [*prompt, *turns]


def dialogue(text: str) -> list[Message]:
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
    return messages


def ranking(value: dict[str, Any], where: str) -> Record:
    """Answers with ranks or scores; without either, they are in order from the best. Raises ConversationError."""
    answers = value["answers"]
    if not isinstance(answers, list) or len(answers) < 2 or not all(isinstance(answer, str) for answer in answers):
        raise ConversationError(f"{where}: answers must be a list of at least two texts")
    ranks = read_ranks(value, len(answers), where)
    pairs = list(zip(answers, ranks, strict=True))
    if any(a == b and i != j for number, (a, i) in enumerate(pairs) for b, j in pairs[:number]):
        raise ConversationError(f"{where}: two equal answers have different ranks; remove one of them")
    answer, margin = text_of(value.get("answer")), read_number(value.get("margin", 0.0), "margin", where)
    return Record(tuple(conversation(value, where)), tuple(answers), ranks, answer, margin, where)


def read_ranks(value: dict[str, Any], count: int, where: str) -> tuple[int, ...]:
    """Ranks as integers, 0 the best. Numbers that are not integers, and scores, keep their order."""
    name = "ranks" if "ranks" in value else "scores"
    if name not in value:
        return tuple(range(count))
    given = value[name]
    if not isinstance(given, list) or len(given) != count:
        raise ConversationError(f"{where}: {name} must be a list of {count} numbers, one per answer")
    numbers = [read_number(each, name, where) for each in given]
    if name == "ranks" and all(number == int(number) for number in numbers):
        return tuple(map(int, numbers))
    order = sorted(set(numbers), reverse=name == "scores")
    return tuple(order.index(number) for number in numbers)


def read_number(value: Any, name: str, where: str) -> float:
    """A finite number. Raises ConversationError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConversationError(f"{where}: {name}: given {value!r}, but a number is needed")
    return float(value)

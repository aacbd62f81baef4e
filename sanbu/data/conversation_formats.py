"""Records of conversations and preferences in the formats that people publish.

conversations  OpenAI {"messages"}, with "weight": 0 for an answer that is not taught; ShareGPT {"conversations":
               [{"from", "value"}]}; Alpaca {"instruction", "input", "output", "history"}, and Dolly, whose input is
               "context"; a "prompt" or "question" with its "completion", "response" or "output". Each may have
               "system" or "system_prompt". KTO's "label": false (or 0) marks an answer that is not taught.
preferences    {"chosen", "rejected"} with "prompt", "question", "messages", "conversations" or "instruction"; each is
               a text, one turn, or a whole dialogue that repeats the prompt (UltraFeedback); HH-RLHF, with and without
               a prompt; OpenAI {"input": {"messages"}, "preferred_output", "non_preferred_output"}.
rankings       {"answers"} with "ranks" (0 is best), or "scores" (highest is best), or in order from the best.

A field that is null is a field that is not there. A record that cannot be represented is refused in one line: tools,
pictures, two different system prompts, dialogues that differ before the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sanbu.codecs.chat import ConversationError, Message, check_messages
from sanbu.data.chance import chance
from sanbu.data.record_files import without_nulls

NAMES = {"human": "user", "developer": "system"} | dict.fromkeys(("gpt", "bing", "chatgpt", "model"), "assistant")
FIELDS = "messages, conversations, instruction, prompt, question, or chosen and rejected"
PROMPTS = ("messages", "conversations", "instruction", "prompt", "question")
SYSTEMS, INPUTS, COMPLETIONS = ("system", "system_prompt"), ("input", "context"), ("completion", "response", "output")
REFUSED = ("tools", "functions", "images", "videos", "audios")  # fields that change what is said


@dataclass(frozen=True)
class Record:
    """A conversation and the answers to it with their ranks: 0 is the best, equal ranks are ties.

    answer: the known right answer, or empty. margin: by how much better answers are preferred. where: file and line,
    for error messages. demonstration: the answer to imitate, or empty for the best one. left_out: why the record is not
    used, or empty. group: records of one group are held out together; empty for a group of equal last messages.
    """

    prompt: tuple[Message, ...]
    answers: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    answer: str = ""
    margin: float = 0.0
    where: str = field(default="", compare=False)
    demonstration: str = ""
    left_out: str = field(default="", compare=False)
    group: str = field(default="", compare=False)

    @property
    def held_out_chance(self) -> float:
        """A hash of the group as a number in [0, 1); without one of the last message; of the answer without either."""
        last = self.prompt[-1]["content"] if self.prompt else "".join(self.answers)
        return chance((self.group or last).encode())


def read_record(value: dict[str, Any], where: str) -> Record:
    """A record in any of the known formats. Raises ConversationError."""
    value = without_nulls(value)
    if "preferred_output" in value or "non_preferred_output" in value:
        value = openai_preference(value, where)
    for name in REFUSED:
        if value.get(name):
            raise ConversationError(f"{where}: {name} are not supported; remove the field or the record")
    if "answers" in value:
        return ranking(value, where)
    if "chosen" in value or "rejected" in value:
        return preference(value, where)
    messages, answer = conversation(value, where), text_of(value.get("answer"))
    left_out = "label is false" if str(value.get("label")).lower() in ("false", "0", "0.0") else ""
    if not messages or messages[-1]["role"] != "assistant" or messages[-1].get("weight") == 0:
        return Record(tuple(messages), answer=answer, where=where, left_out=left_out)
    *before, last = messages
    return Record(tuple(before), (last["content"],), (0,), answer, where=where, left_out=left_out)


def text_of(value: Any) -> str:
    """A field as text; None is empty."""
    return "" if value is None else str(value)


def one_of(value: dict[str, Any], names: Sequence[str], where: str) -> Any:
    """The field that has one of these names, or None. Raises ConversationError where several have contents."""
    given = [name for name in names if value.get(name)] or [name for name in names if name in value]
    if len(given) > 1 and value[given[0]]:
        raise ConversationError(f"{where}: given {' and '.join(given)}; one of them is enough")
    return value[given[0]] if given else None


# -- conversations ----------------------------------------------------------------------------------------------------


def conversation(value: dict[str, Any], where: str) -> list[Message]:
    """The messages of a record in any of the known formats. Raises ConversationError."""
    name = next((name for name in PROMPTS if name in value), None)
    if name is None:
        raise ConversationError(
            f"{where}: no conversation; fields: {', '.join(value)}; one of these is needed: {FIELDS}"
        )
    found = read_turns(value[name], where) if name in PROMPTS[:2] else asked_and_answered(value, value[name], where)
    system = text_of(one_of(value, SYSTEMS, where))
    if system and (not found or found[0]["role"] != "system"):
        found = [{"role": "system", "content": system}, *found]
    if system and found[0]["content"] != system:
        raise ConversationError(f"{where}: the field system and the message of the system differ; remove one of them")
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
    role, content = (turn.get(name) for name in (("from", "value") if "from" in turn else ("role", "content")))
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(text_of(part.get("text")) for part in content)
    message: Message = {"role": NAMES.get(str(role).lower(), role), "content": content}
    if "weight" in turn:
        if turn["weight"] not in (0, 1):
            raise ConversationError(f"{where}: weight: given {turn['weight']!r}, allowed: 0 or 1")
        message["weight"] = turn["weight"]
    return message


def asked_and_answered(value: dict[str, Any], question: Any, where: str) -> list[Message]:
    """A question with its input, its completion, and "history": [[question, answer], ...] before it.

    Question and completion may be lists of messages; a question may be a text of HH-RLHF.
    """
    completion = one_of(value, COMPLETIONS, where)
    if isinstance(question, list):
        return read_turns(question, where) + (read_turns(completion, where) if completion is not None else [])
    messages: list[Message] = []
    history = value.get("history", [])
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ConversationError(f"{where}: history must be a list of pairs of a question and an answer")
        messages += question_and_answer(*pair)
    if is_dialogue(question):
        *before, last = dialogue(question)
        return [*messages, *before, *([last] if last["content"] else []), *question_and_answer("", completion)[1:]]
    more = text_of(one_of(value, INPUTS, where))
    question = f"{text_of(question)}\n\n{more}".strip("\n") if more else question
    return messages + question_and_answer(question, completion)


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
        whole = is_dialogue(value) or not before
        turns = dialogue(value) if whole else [{"role": "assistant", "content": value}]
    elif not isinstance(value, (dict, list)):
        raise ConversationError(f"{where}: chosen and rejected must each be a text, a turn or a list of turns")
    else:
        turns = check_messages(read_turns([value] if isinstance(value, dict) else value, where), where)
    if not turns or turns[-1]["role"] != "assistant":
        raise ConversationError(f"{where}: chosen and rejected must end with an answer of the assistant")
    answered = bool(before) and before[-1]["role"] == "assistant"
    if answered and len(turns) == 1:
        raise ConversationError(f"{where}: the conversation before chosen and rejected ends with an answer; remove it")
    prompt = list(before[:-1] if answered else before)
    system = [message for message in prompt[:1] if message["role"] == "system" and turns[0]["role"] != "system"]
    if len(turns) == 1 or not prompt:
        return check_messages([*prompt, *turns], where)
    if [*system, *turns][: len(prompt)] == prompt:
        return [*system, *turns]
    if prompt[-1]["role"] == turns[0]["role"]:
        raise ConversationError(f"{where}: chosen or rejected neither repeats the prompt nor continues it")
    return [*prompt, *turns]


def is_dialogue(text: Any) -> bool:
    """Whether a text is a dialogue in the format of HH-RLHF."""
    return isinstance(text, str) and text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


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


def openai_preference(value: dict[str, Any], where: str) -> dict[str, Any]:
    """{"input": {"messages", "tools"}, "preferred_output", "non_preferred_output"} with the names of other formats."""
    asked = value.get("input")
    if not isinstance(asked, dict):
        raise ConversationError(f"{where}: input must be an object with messages")
    names = {"chosen": "preferred_output", "rejected": "non_preferred_output"}
    return value | asked | {name: value[other] for name, other in names.items() if other in value}


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
    before = conversation(value, where)
    if before[-1]["role"] == "assistant":
        raise ConversationError(f"{where}: the conversation before answers ends with an answer; remove it")
    return Record(tuple(before), tuple(answers), ranks, answer, margin, where)


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

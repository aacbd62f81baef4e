"""Conversations as tokens with a loss mask.

A conversation is a list of messages, {"role": "user", "content": "..."}. The loss covers the answers of the assistant
and the end token after each, so that a model learns to stop. The renderer computes the mask; it is not searched for in
the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

from sanbu.codecs.text import Plain, TextFollower, TokenCodec
from sanbu.codecs.tokenizer import ASSISTANT, SYSTEM, USER, Tokenizer, TokenizerConfig, encode
from sanbu.config import Choice, SanbuError, nearest

Message = dict[str, Any]  # role, content; weight 0: an answer without a loss
Rendered = tuple[list[int], list[bool]]  # ids, and whether each has a loss
ROLES = ("system", "user", "assistant")
MARKERS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
WRITTEN = {"system": "System: ", "user": "User: ", "assistant": "Assistant:"}


class ConversationError(SanbuError):
    """A conversation that cannot be rendered or used for training."""


class Template(Protocol):
    """Renders conversations as tokens."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The ids of a conversation, and for each whether it has a loss."""

    def ask(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation, followed by the beginning of an assistant turn."""


def recent(template: Template, messages: Sequence[Message], context: int, answer: int) -> list[Message]:
    """A conversation without its oldest turns, so that an answer fits into the context after it.

    System messages and the last message stay. answer: its tokens at most; up to a quarter of the context is left free.
    """
    kept, room = list(messages), context - min(answer, context // 4)
    first = next((place for place, message in enumerate(kept) if message["role"] != "system"), 0)
    while len(kept) > first + 1 and len(template.ask(kept)) > room:
        following = (place for place in range(first + 1, len(kept)) if kept[place]["role"] == "user")
        del kept[first : next(following, len(kept) - 1)]
    return kept


class TemplateConfig(Choice):
    """A chat template."""

    table: ClassVar[str] = "sanbu.codecs:TEMPLATES"

    def build(self, tokenizer: Tokenizer) -> Template:
        raise NotImplementedError

    def resolve(self, tokenizer: TokenizerConfig) -> TemplateConfig:
        """This config with the text of the template file included, and the token that ends an answer."""
        return self

    def fingerprint(self) -> str:
        """What renderings depend on besides the config; empty for nothing."""
        return ""

    def end_id(self, tokenizer: TokenizerConfig) -> int | None:
        """The token that ends an answer: it is taught, and sampling stops at it."""
        return tokenizer.end()


class Turns(TemplateConfig):
    """Built-in: one token per role, an end token after each answer."""

    kind: Literal["turns"] = "turns"

    def build(self, tokenizer: Tokenizer) -> Template:
        return TurnsTemplate(tokenizer)


class TurnsTemplate:
    """The built-in template: role token, content, end token after answers; role names without role tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        if tokenizer.end is None:
            raise ConversationError("data.tokenizer: conversations need an end token, and this tokenizer has none")
        self.end = tokenizer.end
        self.marks = {role: tokenizer.special(name) for role, name in MARKERS.items()}
        self.marked = None not in self.marks.values()
        self.known: dict[str, list[int]] = {}

    def learn(self, texts: Sequence[str]) -> None:
        """Encode many contents in one batch, which is faster than one by one, and cache their ids."""
        spoken = list(texts)
        if not self.marked:
            spoken = [form for text in texts for form in (" " + text, text + "\n")]
        self.known = dict(zip(spoken, (ids.tolist() for ids in self.tokenizer.encode_batch(spoken)), strict=True))

    def render(self, messages: Sequence[Message]) -> Rendered:
        ids: list[int] = []
        taught: list[bool] = []
        for part, learn in self._parts(messages):
            ids += part
            taught += [learn] * len(part)
        return ids, taught

    def ask(self, messages: Sequence[Message]) -> list[int]:
        return self.render(messages)[0] + self._mark("assistant")

    def _parts(self, messages: Sequence[Message]) -> list[tuple[list[int], bool]]:
        start = [] if self.marked or self.tokenizer.start is None else [self.tokenizer.start]
        parts: list[tuple[list[int], bool]] = [(start, False)]
        for message in messages:
            answer = message["role"] == "assistant"
            parts.append((self._mark(message["role"]), False))
            taught = answer and message.get("weight") != 0
            parts.append((self._say(message["content"], answer) + ([self.end] if answer else []), taught))
        return parts

    def _mark(self, role: str) -> list[int]:
        mark = self.marks[role]
        return encode(self.tokenizer, WRITTEN[role]) if mark is None or not self.marked else [mark]

    def _say(self, content: str, answer: bool) -> list[int]:
        if self.marked:
            text = content
        else:
            text = " " + content if answer else content + "\n"
        return self.known.get(text) or encode(self.tokenizer, text)


class ChatCodec(TokenCodec):
    """Questions or conversations in, answers as text out."""

    def __init__(self, tokenizer: Tokenizer, template: TemplateConfig) -> None:
        super().__init__(tokenizer)
        self.template: Template = template.build(tokenizer)

    def begin(self, prompt: str | Sequence[Message]) -> list[int]:
        """The ids of a question, or of a conversation that ends with one; of a `Plain` text, those of a document."""
        if isinstance(prompt, Plain):
            return self.document_ids(prompt)
        return self.template.ask(messages_of(prompt))

    def before(self, prompt: str | None) -> str:
        """Nothing before an answer; before the continuation of a `Plain` text, the text."""
        return prompt if isinstance(prompt, Plain) else ""

    def follow(self, stop: Sequence[str] = ()) -> TextFollower:
        """A follower of drafts that ends rows at the stop texts."""
        return TextFollower(self.tokenizer, stop)


def messages_of(prompt: str | Sequence[Message]) -> list[Message]:
    """A prompt as a conversation."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return check_messages(list(prompt), "the prompt")


def check_messages(messages: list[Message], where: str) -> list[Message]:
    """The messages, if they are a conversation. Raises ConversationError, whose text begins with `where`."""
    if not messages:
        raise ConversationError(f"{where}: the conversation is empty")
    for number, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ConversationError(
                f"{where}, message {number}: unknown role {role!r}; allowed: {', '.join(ROLES)}"
                f"{nearest(str(role), ROLES)}"
            )
        if not isinstance(content, str):
            raise ConversationError(
                f"{where}, message {number}: the content is {type(content).__name__}, but must be text"
            )
    return messages

"""Foreign chat templates: Jinja in a sandbox, with a mask that follows from what each assistant turn adds.

The tokens of a turn are those the template writes for messages[:i + 1] beyond messages[:i] and the beginning of an
answer. A template that rewrites what it wrote before has no such turns and is refused; one that does not come to an
end is stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field

from sanbu.codecs.chat import ConversationError, Message, Rendered, Template, TemplateConfig
from sanbu.codecs.tokenizer import Tokenizer

SECONDS = 2.0
LONGEST = 1 << 20


class Sandbox(ImmutableSandboxedEnvironment):  # type: ignore[misc]
    """No attribute that leads out, no product that fills the memory."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(side, (int, float)) for side in (left, right)):
            raise SecurityError(f"{operator} is not allowed here")
        return super().call_binop(context, operator, left, right)


class Jinja(TemplateConfig):
    """A chat template as model makers publish it, run in a sandbox."""

    kind: Literal["jinja"] = "jinja"
    path: str = Field("", description="a folder with tokenizer_config.json or chat_template.jinja, or such a file")
    source: str = Field("", description="the template itself; read from path when a run begins")
    end: str = Field("", description="what the template calls eos_token; by default the tokenizer's end")

    def build(self, tokenizer: Tokenizer) -> Template:
        return JinjaTemplate(self.source or source_of(self.path), tokenizer, self.end)

    def resolve(self) -> Jinja:
        return self if self.source else self.model_copy(update={"source": source_of(self.path)})


class JinjaTemplate:
    """A template as model makers publish it, on a tokenizer.json."""

    def __init__(self, source: str, tokenizer: Tokenizer, end: str) -> None:
        if not hasattr(tokenizer, "encode_with_special"):
            raise ConversationError(
                "data.template: a jinja template needs a tokenizer.json, whose special tokens it writes"
            )
        self.tokenizer: Any = tokenizer
        self.names = {"bos_token": self._name(tokenizer.start), "eos_token": end or self._name(tokenizer.end)}
        sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        sandbox.globals["raise_exception"] = raise_exception
        sandbox.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
        try:
            self.template = sandbox.from_string(source)
        except TemplateError as error:
            raise ConversationError(f"data.template: {error}") from None

    def render(self, messages: Sequence[Message]) -> Rendered:
        text, spans = self._write(messages), []
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                before = self._write(messages[:number], True)
                after = self._write(messages[: number + 1])
                if not after.startswith(before) or not text.startswith(after):
                    raise ConversationError(
                        "data.template: it rewrites earlier turns, so no mask can be made; take turns"
                    )
                spans.append((len(before), len(after)))
        ids, offsets = self.tokenizer.encode_with_special(text)
        inside = lambda a, b: any(first <= a and b <= last for first, last in spans)  # noqa: E731
        return ids, [inside(a, b) for a, b in offsets]

    def ask(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.encode_with_special(self._write(messages, True))[0]

    def _write(self, messages: Sequence[Message], ask: bool = False) -> str:
        special = [piece for piece in self.tokenizer.tokenizer.get_added_tokens_decoder().values() if piece.special]
        for message in messages:
            if found := next((token.content for token in special if token.content in message["content"]), None):
                raise ConversationError(f"a message holds {found!r}, which only the template may write")
        try:
            with Deadline(SECONDS):
                text = self.template.render(messages=list(messages), add_generation_prompt=ask, **self.names)
        except TimeoutError:
            raise ConversationError(f"data.template: it did not come to an end within {SECONDS:g} s") from None
        except (TemplateError, TypeError, ValueError, OverflowError, RecursionError, KeyError) as error:
            raise ConversationError(f"data.template: {str(error).splitlines()[0] or type(error).__name__}") from None
        if len(text) > LONGEST:
            raise ConversationError(
                f"data.template: it writes {len(text):,} characters; at most {LONGEST:,} are allowed"
            )
        return text

    def _name(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.tokenizer.id_to_token(token) or ""


class Deadline:
    """Stops Python code that runs too long, by a look at the clock at each line it reaches."""

    def __init__(self, seconds: float) -> None:
        self.last, self.old = time.monotonic() + seconds, sys.gettrace()

    def __enter__(self) -> None:
        sys.settrace(self._look)

    def __exit__(self, *error: object) -> None:
        sys.settrace(self.old)

    def _look(self, frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > self.last:
            raise TimeoutError
        return self._look


def raise_exception(message: str) -> None:
    """What templates call when a conversation does not suit them."""
    raise TemplateError(message)


def source_of(path: str) -> str:
    """The template of a tokenizer_config.json, a folder with one, or a .jinja file."""
    place = Path(path)
    for file in (place / "chat_template.jinja", place / "tokenizer_config.json") if place.is_dir() else (place,):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            if file.suffix != ".json":
                return text
            template = json.loads(text).get("chat_template")
            if isinstance(template, str):
                return template
            raise ConversationError(f"data.template.path: {file} has no chat_template")
    raise ConversationError(f"data.template.path: there is no template at {path!r}")

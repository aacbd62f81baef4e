"""Chat templates in the Jinja format of Hugging Face, run in a sandbox.

The loss mask of assistant message i is the text of messages[:i + 1] after the text of messages[:i] with the beginning
of an answer. A template that changes the text of earlier messages is refused, and one that runs too long is stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field

from sanbu.codecs.chat import ConversationError, Message, Rendered, Template, TemplateConfig
from sanbu.codecs.tokenizer import Tokenizer, TokenizerConfig
from sanbu.config import change
from sanbu.files import read_object

SECONDS = 2.0  # time limit of a template
LONGEST = 1 << 20  # most characters of a rendered conversation


class Sandbox(ImmutableSandboxedEnvironment):  # type: ignore[misc]
    """A sandbox that also refuses powers and the repetition of strings and lists, which could exhaust memory."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(side, (int, float)) for side in (left, right)):
            raise SecurityError(f"{operator} is not allowed here")
        return super().call_binop(context, operator, left, right)


class Jinja(TemplateConfig):
    """A published Jinja chat template, run in a sandbox."""

    kind: Literal["jinja"] = "jinja"
    path: str = Field("", description="tokenizer_config.json, a .jinja file, or a folder with one of them")
    source: str = Field("", description="text of the template; default: read from path")
    end: str = Field("", description="eos_token of the template; default: end token of the tokenizer")
    stop_id: int | None = Field(None, description="token that ends an answer; found when the recipe is resolved")

    def build(self, tokenizer: Tokenizer) -> Template:
        return JinjaTemplate(self.source or source_of(self.path), tokenizer, self.end)

    def resolve(self, tokenizer: TokenizerConfig) -> Jinja:
        found = self if self.source else change(self, {"source": source_of(self.path)})
        return change(found, {"stop_id": found.end_id(tokenizer)})

    def end_id(self, tokenizer: TokenizerConfig) -> int | None:
        return self.stop_id if self.stop_id is not None else find_stop(self, tokenizer)


@lru_cache(maxsize=16)
def find_stop(config: Jinja, tokenizer: TokenizerConfig) -> int | None:
    """The first special token with a loss after an answer; the end of the tokenizer if there is none."""
    built = tokenizer.build(())
    if not hasattr(built, "encode_with_special"):  # the template is refused when it is built
        return tokenizer.end()
    talk: list[Message] = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    ids, taught = config.build(built).render(talk)
    after = [number for number, learn in zip(ids, taught, strict=True) if learn]
    ends = [number for number in after if not built.pieces[number]]  # special tokens stand for no bytes
    return ends[0] if ends else tokenizer.end()


class JinjaTemplate:
    """A Jinja template with a tokenizer.json."""

    def __init__(self, source: str, tokenizer: Tokenizer, end: str) -> None:
        if not hasattr(tokenizer, "encode_with_special"):
            raise ConversationError("data.template: a jinja template needs a tokenizer.json; set data.tokenizer=file")
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
            if message["role"] == "assistant" and message.get("weight") != 0:
                before = self._write(messages[:number], True)
                after = self._write(messages[: number + 1])
                if not after.startswith(before) or not text.startswith(after):
                    raise ConversationError(
                        "data.template: it rewrites earlier turns, so there is no loss mask; use data.template=turns"
                    )
                spans.append((len(before), len(after)))
        ids, offsets = self.tokenizer.encode_with_special(text)
        taught = [any(first < end and last > start for start, end in spans) for first, last in offsets]
        return ids, taught

    def ask(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.encode_with_special(self._write(messages, True))[0]

    def _write(self, messages: Sequence[Message], ask: bool = False) -> str:
        special = [piece for piece in self.tokenizer.tokenizer.get_added_tokens_decoder().values() if piece.special]
        for message in messages:
            found = [token.content for token in special if token.content in message["content"]]
            if found:
                raise ConversationError(f"a message contains {found[0]!r}, which only the template may write")
        plain = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
        try:
            with Deadline(SECONDS):
                text = self.template.render(messages=plain, add_generation_prompt=ask, **self.names)
        except TimeoutError:
            raise ConversationError(f"data.template: it did not finish within {SECONDS:g} s") from None
        except Exception as error:  # a template is foreign code and can raise anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConversationError(f"data.template: {reason}") from None
        if len(text) > LONGEST:
            raise ConversationError(
                f"data.template: it writes {len(text):,} characters; at most {LONGEST:,} are allowed"
            )
        return text

    def _name(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.tokenizer.id_to_token(token) or ""


class Deadline:
    """Raises TimeoutError in Python code that runs too long. Uses sys.settrace, so debuggers do not see that code."""

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
    """The function that templates call to refuse a conversation."""
    raise TemplateError(message)


def read_template(file: Path) -> str:
    """The text of a template. Raises ConversationError."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConversationError(f"data.template.path: {file} cannot be read: {error}") from None


def source_of(path: str) -> str:
    """The template of a tokenizer_config.json, a folder with one, or a .jinja file."""
    place = Path(path)
    for file in (place / "chat_template.jinja", place / "tokenizer_config.json") if place.is_dir() else (place,):
        if file.is_file():
            if file.suffix != ".json":
                return read_template(file)
            template = read_object(file).get("chat_template")
            if isinstance(template, str):
                return template
            raise ConversationError(f"data.template.path: {file} has no chat_template")
    raise ConversationError(f"data.template.path: there is no template at {path!r}")

"""Chat templates in the Jinja format of Hugging Face, run in a sandbox.

They see what transformers gives them, and run in a child process (see `renderer`). The loss covers what the template
writes between {% generation %} and {% endgeneration %}. Without these tags it covers, of assistant message i, the text
of messages[:i + 1] after that of messages[:i] with a generation prompt; a template that rewrites earlier messages is
then refused.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sanbu.codecs.chat import ConversationError, Message, Rendered, Template, TemplateConfig
from sanbu.codecs.renderer import CLOSE, OPEN, Renderer, RenderError
from sanbu.codecs.tokenizer import Tokenizer, TokenizerConfig
from sanbu.config import change
from sanbu.files import read_object

Span = tuple[int, int]  # first character, and the one after the last
TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
MARKS = re.compile(f"[{OPEN}{CLOSE}]")
PROBE = "\ufdd2"  # an answer that begins with nothing that a template writes


class Jinja(TemplateConfig):
    """A published Jinja chat template, run in a sandbox."""

    kind: Literal["jinja"] = "jinja"
    path: str = Field("", description="tokenizer_config.json, a .jinja file, or a folder with one of them")
    source: str = Field("", description="text of the template; default: read from path")
    end: str = Field("", description="eos_token of the template; default: end token of the tokenizer")
    date: str = Field(
        "", pattern=r"^(\d{4}-\d\d-\d\d)?$", description="date of strftime_now, YYYY-MM-DD; default: today"
    )
    stop_id: int | None = Field(None, description="token that ends an answer; found when the recipe is resolved")

    def build(self, tokenizer: Tokenizer) -> Template:
        return JinjaTemplate(self.source or source_of(self.path), tokenizer, self.end, self.date)

    def resolve(self, tokenizer: TokenizerConfig) -> Jinja:
        found = self if self.source else change(self, {"source": source_of(self.path)})
        return change(found, {"stop_id": found.end_id(tokenizer)})

    def fingerprint(self) -> str:
        return datetime.date.today().isoformat() if "strftime_now" in self.source and not self.date else ""

    def end_id(self, tokenizer: TokenizerConfig) -> int | None:
        return self.stop_id if self.stop_id is not None else find_stop(self, tokenizer)


@lru_cache(maxsize=16)
def find_stop(config: Jinja, tokenizer: TokenizerConfig) -> int | None:
    """The first special token after the beginning of an answer; the end of the tokenizer if there is none."""
    built = tokenizer.build(())
    if not hasattr(built, "encode_with_special"):  # the template is refused when it is built
        return tokenizer.end()
    talk: list[Message] = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    ids, taught = config.build(built).render(talk)
    after = ids[taught.index(True) :] if any(taught) else []
    ends = [number for number in after if not built.pieces[number]]  # special tokens stand for no bytes
    return ends[0] if ends else tokenizer.end()


class JinjaTemplate:
    """A Jinja template with a tokenizer.json. date: see `Jinja`."""

    def __init__(self, source: str, tokenizer: Tokenizer, end: str, date: str = "") -> None:
        if not hasattr(tokenizer, "encode_with_special"):
            raise ConversationError("data.template: a jinja template needs a tokenizer.json; set data.tokenizer=file")
        self.tokenizer: Any = tokenizer
        names = {"bos_token": self._name(tokenizer.start), "eos_token": end or self._name(tokenizer.end)}
        self.given = {"tools": None, "documents": None, **names}
        self.special = re.compile("|".join(map(re.escape, [*special_pieces(tokenizer), OPEN, CLOSE])))
        self.tagged = TAG.search(source) is not None
        self.renderer = Renderer(source, date)

    def render(self, messages: Sequence[Message]) -> Rendered:
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        if self.tagged:
            text, spans = without_marks(self._write([(messages, False)])[0])
        else:
            text, spans = self._compare(messages, answers)
        weights = [messages[number].get("weight") != 0 for number in answers]
        if not all(weights):
            if len(spans) != len(answers):
                said = f"{len(spans)} generation blocks for {len(answers)} answers, of which some have weight 0"
                raise ConversationError(f"data.template: it writes {said}; it must write one per answer")
            spans = [span for span, taught in zip(spans, weights, strict=True) if taught]
        ids, offsets = self.tokenizer.encode_with_special(text)
        return ids, [any(first < end and last > start for start, end in spans) for first, last in offsets]

    def ask(self, messages: Sequence[Message]) -> list[int]:
        text, _ = without_marks(self._write([(messages, True)])[0])
        return list(self.tokenizer.encode_with_special(text)[0])

    def _compare(self, messages: Sequence[Message], answers: Sequence[int]) -> tuple[str, list[Span]]:
        """The text, and the span of each answer: what its turn adds to the text before it with a generation prompt."""
        kinds = ((0, False), (0, True), (1, False))
        tasks = [(messages[: number + more], ask) for number in answers for more, ask in kinds]
        text, *texts = self._write([(messages, False), *tasks])
        spans = []
        for number, before, asked, after in zip(answers, texts[::3], texts[1::3], texts[2::3], strict=True):
            if not after.startswith(before) or not text.startswith(after):
                raise ConversationError(
                    "data.template: it rewrites earlier turns, so there is no loss mask; use data.template=turns"
                )
            start = len(asked) if after.startswith(asked) else self._beginning(messages[:number], asked)
            spans.append((start, len(after)))
        return text, spans

    def _beginning(self, messages: Sequence[Message], asked: str) -> int:
        """Where an answer begins after a generation prompt that adds more than the turn does, as an opened <think>."""
        probe = self._write([([*messages, {"role": "assistant", "content": PROBE}], False)])[0]
        return next(n for n, (one, other) in enumerate(zip(probe, asked + PROBE * 2, strict=False)) if one != other)

    def _write(self, tasks: Sequence[tuple[Sequence[Message], bool]]) -> list[str]:
        for message in tasks[0][0]:
            if found := self.special.search(message["content"]):
                raise ConversationError(f"a message contains {found[0]!r}, which only the template may write")
        plain = [
            [{name: value for name, value in message.items() if name != "weight"} for message in messages]
            for messages, _ in tasks
        ]
        try:
            return self.renderer.render(
                [
                    {"messages": messages, "add_generation_prompt": ask, **self.given}
                    for messages, (_, ask) in zip(plain, tasks, strict=True)
                ]
            )
        except RenderError as error:
            raise ConversationError(f"data.template: {error}") from None

    def _name(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.tokenizer.id_to_token(token) or ""


def special_pieces(tokenizer: Any) -> list[str]:
    """The texts of the special tokens of a tokenizer.json."""
    return [token.content for token in tokenizer.tokenizer.get_added_tokens_decoder().values() if token.special]


def without_marks(text: str) -> tuple[str, list[Span]]:
    """The text without the marks of {% generation %}, and the spans that they enclosed."""
    pieces = MARKS.split(text)
    ends = list(accumulate(map(len, pieces)))
    return "".join(pieces), list(zip(ends[:-1:2], ends[1::2], strict=False))


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

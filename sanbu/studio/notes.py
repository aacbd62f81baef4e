"""The lines of the chat tab in the reader's language: about a run, why an answer ended, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sanbu.codecs.chat import ChatCodec
from sanbu.config import kind_of
from sanbu.serve.service import Service
from sanbu.studio.conversation import Turn, Version
from sanbu.studio.translations import Language, translate


def plain_html(text: str) -> str:
    """A text as HTML that is neither markup nor a template."""
    return escape(text).replace("{", "&#123;").replace("$", "&#36;").replace("`", "&#96;")


def status(text: str) -> str:
    """A line that a screen reader tells when it is free; an empty one takes no space."""
    return f'<p class="line" role="status">{plain_html(text)}</p>'


def alert(text: str) -> str:
    """A line about an error, which a screen reader tells at once."""
    return f'<p class="line wrong" role="alert">{plain_html(text)}</p>'


def about_run(service: Service, name: str, language: Language) -> str:
    """One line about a run: its model, its size, and whether it was trained on conversations."""
    hosted = service.runs.get(name)
    if hosted is None:
        expected = service.expected.get(name)
        state = expected.state() if expected else ""
        return translate("about_expected", language).format(state=state)
    word = "about_chat" if isinstance(hosted.run.codec, ChatCodec) else "about_base"
    parameters = sum(each.numel() for each in hosted.run.model.parameters())
    kind = kind_of(hosted.run.recipe.model)
    context = f"{hosted.context:,}"
    return translate(word, language).format(kind=kind, count=short(parameters), context=context)


def short(number: int) -> str:
    """A number of parameters in three digits: 950, 12.3k, 124M."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def last_answer(turns: Sequence[Turn], language: Language) -> str:
    """Which version of the last answer is shown, why it ended, its tokens and its speed; empty without an answer."""
    turn = turns[-1] if turns else Turn(question="")
    version, several = turn.answer, len(turn.versions)
    if version is None:
        return ""
    place = translate("version", language).format(shown=turn.shown + 1, count=several)
    parts = [place] if several > 1 else []
    parts.append(translate(f"ended_{version.finish or ''}", language))
    if version.temperature is not None:
        parts.append(f"{translate('temperature', language)} {version.temperature:g}")
    if version.tokens:
        parts.append(translate("rate", language).format(tokens=version.tokens, rate=speed(version)))
    return " · ".join(parts)


def speed(version: Version) -> float:
    """Tokens per second, from the question to the end of the answer."""
    return version.tokens / max(version.seconds, 1e-6)

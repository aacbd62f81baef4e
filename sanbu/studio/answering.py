"""Several runs answer at the same time: pieces of text go into the conversations as they come."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from sanbu.codecs.chat import ChatCodec, recent
from sanbu.config import SanbuError
from sanbu.serve.chat import ChatCompletion
from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun, PromptTooLong
from sanbu.serve.schemas import ChatBody
from sanbu.serve.service import Service
from sanbu.studio.conversation import Kept, Message, Turn, Turns, Version, prompt_messages, turn_of

PAUSE = 0.03  # seconds between two updates of the page


@dataclass(frozen=True)
class Sampling:
    """How the answers to a message are sampled. temperature: None for each run's own."""

    system: str
    temperature: float | None
    most: int
    seed: int
    remember: bool

    @classmethod
    def read(cls, system: str, temperature: str, most: float, seed: float | None, remember: bool) -> Sampling:
        """From the values of the page. Raises SanbuError."""
        return cls(system, read_temperature(temperature), int(most), int(seed or 0), remember)


def read_temperature(text: str) -> float | None:
    """A temperature that a person typed, None for an empty text. Raises SanbuError."""
    plain = unicodedata.normalize("NFKC", text).strip()  # full-width digits too
    if not plain:
        return None
    try:
        value = float(plain)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise SanbuError(f"temperature: given {text!r}, allowed: 0 to 2")
    return value


@dataclass
class Answering:
    """The answers that are written for one page. errors: why a run did not answer, by run."""

    service: Service
    kept: Kept
    names: Sequence[str]
    how: Sampling
    errors: dict[str, APIError] = field(default_factory=dict)
    changed: asyncio.Queue[int] = field(default_factory=asyncio.Queue)  # -1: one ended

    def stop(self) -> None:
        """End all answers; what is written of them stays."""
        self.changed.put_nowait(-len(self.names))

    async def stream(self) -> AsyncGenerator[int]:
        """Yields the number of the update whenever there is new text. Closing it cancels the answers."""
        tasks = [asyncio.create_task(self._answer(name, self.kept[name])) for name in self.names]
        left, updates = len(tasks), 0
        try:
            while left > 0:
                left += await self.changed.get()
                while not self.changed.empty():
                    left += self.changed.get_nowait()
                if left > 0:
                    updates += 1
                    yield updates
                    await asyncio.sleep(PAUSE)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, name: str, turns: Turns) -> None:
        """The answer of one run to its last question; it becomes a new version."""
        begun, version = time.perf_counter(), turns[-1].begin(self.how.seed)
        try:
            chat = await self._request(name, turns, version)
            async for piece in chat.generation.pieces(self.service.metrics):
                version.text += piece.text
                version.tokens = chat.generation.answers[0].tokens
                version.finish = self._finish(piece.finish, version.tokens)
                self.changed.put_nowait(0)
        except Exception as error:
            self.errors[name], version.finish = api_error(error), "error"
        finally:
            version.seconds = time.perf_counter() - begun
            version.finish = version.finish or "cancelled"
            if version.finish in ("error", "cancelled") and not version.text:
                turns[-1].drop(version)
            self.changed.put_nowait(-1)

    async def _request(self, name: str, turns: Turns, version: Version) -> ChatCompletion:
        """The request for a version. A run that is not trained yet raises with how far it is."""
        if name not in self.service.runs:
            await asyncio.to_thread(self.service.open_finished)  # it may have ended a moment ago
        hosted = self.service.find(name)
        told = [{"role": "system", "content": self.how.system}] if self.how.system else []
        again = len(turns[-1].versions) > 1
        version.temperature = (
            other_temperature(hosted) if again and self.how.temperature is None else self.how.temperature
        )
        asked: dict[str, object] = {"model": name, "seed": version.seed, "max_tokens": self.how.most}
        if version.temperature is not None:
            asked["temperature"] = version.temperature

        def build() -> ChatCompletion:
            messages = fitting(hosted, told + prompt_messages(turns, self.how.remember), self.how.most)
            return ChatCompletion(hosted, ChatBody.model_validate({**asked, "messages": messages}))

        return await asyncio.to_thread(build)  # template and tokens take time: not in the event loop

    def _finish(self, finish: str | None, tokens: int) -> str | None:
        """Why an answer ended: `length` is Max tokens, `context` a full context."""
        return "context" if finish == "length" and tokens < self.how.most else finish


def other_temperature(hosted: HostedRun) -> float | None:
    """The temperature of another version if a person gives none: 1 if the run's own is 0, at which all are equal."""
    return 1.0 if getattr(hosted.run.recipe.strategy, "temperature", None) == 0 else None


def ask(kept: Kept, names: Sequence[str], text: str) -> None:
    """Add a question to the conversation with each run."""
    for name in names:
        kept.setdefault(name, []).append(Turn(question=text))


def edit(turns: Turns, message: int, text: str) -> None:
    """Change the question that a shown message is; what followed it is taken out."""
    turns[turn_of(turns, message) :] = [Turn(question=text)]


def fitting(hosted: HostedRun, messages: list[Message], most: int) -> list[Message]:
    """The messages without the oldest turns, so that they fit into the context together with an answer."""
    if not hosted.context:
        return messages
    codec = hosted.run.codec
    if isinstance(codec, ChatCodec):
        return list(recent(codec.template, messages, hosted.context, most))
    room = hosted.context - min(most, hosted.context // 4)
    spoken = [message for message in messages if message["role"] != "system"]  # a base run reads no system prompt
    while len(spoken) > 2 and length(hosted, spoken) > room:
        spoken = spoken[2:]
    return spoken


def length(hosted: HostedRun, messages: list[Message]) -> int:
    """Tokens of a prompt; one that is too long to be read counts as one more than the context."""
    try:
        return len(hosted.encode_chat(messages))
    except PromptTooLong:
        return hosted.context + 1

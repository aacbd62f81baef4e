"""POST /v1/audio/speech: a text as sound, sent while it is made; /v1/audio/transcriptions: the text of a sound."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sanbu.codecs.audio import FORMATS, AudioError
from sanbu.codecs.sound_stream import SoundStream
from sanbu.config import SanbuError, nearest
from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.request_builder import compact
from sanbu.serve.schemas import Body, Text
from sanbu.serve.single_lane import Job
from sanbu.serve.streaming import stream_job

CHUNK = 32  # frames per piece of sound
MEDIA = {
    "wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "ogg": "audio/ogg", "opus": "audio/ogg",
    "pcm": "audio/pcm",
}  # fmt: skip


class SpeechBody(Body):
    """POST /v1/audio/speech"""

    model: Text | None = None
    input: str = Field(min_length=1, max_length=4096)
    voice: str | dict[str, str] | None = None
    response_format: str | None = None
    speed: float | None = Field(None, ge=0.25, le=4)
    stream_format: Literal["audio", "sse"] | None = None
    instructions: str | None = None


class SpeechGeneration:
    """A text spoken by a run; `sound` gives the bytes of the file, `stream` the same as events."""

    def __init__(self, served: HostedRun, body: SpeechBody) -> None:
        codec: Any = served.run.codec
        if not hasattr(codec, "voices"):
            raise APIError(400, f"{served.name} does not speak; choose a run of speech", "model")
        self.format = body.response_format or "mp3"
        if self.format not in FORMATS:
            known = ", ".join(FORMATS)
            said = f"response_format: given {self.format[:20]!r}, allowed: {known}{nearest(self.format, FORMATS)}"
            raise APIError(400, said, "response_format")
        voice = body.voice if isinstance(body.voice, str) else (body.voice or {}).get("id")
        try:
            number = codec.voice_number(voice, 0)
        except SanbuError as error:
            raise APIError(400, str(error), "voice") from None
        try:
            self.condition = codec.condition({"text": body.input, "voice": number}, 1)
            self.drawing = served.run.drawing(fields={"rate": body.speed or 1.0, "chunk": CHUNK})
        except SanbuError as error:
            raise APIError(400, str(error).replace("prompt:", "input:"), "input") from None
        self.served, self.letters = served, len(body.input)
        self.rate = served.run.recipe.data.space().mel.rate

    @property
    def media(self) -> str:
        """The media type of the sound."""
        return MEDIA[self.format]

    def pieces(self, owner: str = "") -> AsyncIterator[bytes]:
        """Submit, and give out the bytes as they are made. Raises Busy when the queue is full."""
        stream = SoundStream(self.rate, self.format)
        return stream_job(lambda deliver, end: Job(stream.encode(self.drawn()), deliver, end, owner), self.served)

    def waves(self) -> AsyncIterator[np.ndarray]:
        """The same as samples [N]."""
        return stream_job(lambda deliver, end: Job(self.drawn(), deliver, end), self.served)

    def drawn(self) -> Iterator[np.ndarray]:
        """What each step adds to the wave."""
        follower = self.drawing.follow()
        for _ in self.drawing.drafts(self.condition, 0, follower.update):
            yield follower.pieces[0]

    async def sound(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces that have bytes."""
        async for piece in pieces:
            if piece:
                yield piece

    async def stream(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, str]]:
        """Events of OpenAI's API: speech.audio.delta, and speech.audio.done at the end."""
        sent = 0
        try:
            async for piece in self.sound(pieces):
                kind, sent = "speech.audio.delta", sent + 1
                yield kind, compact({"type": kind, "audio": base64.b64encode(piece).decode()})
            usage = {"input_tokens": self.letters, "output_tokens": sent, "total_tokens": self.letters + sent}
            yield "speech.audio.done", compact({"type": "speech.audio.done", "usage": usage})
        except Exception as error:
            yield "error", compact(api_error(error).body())


class Transcription:
    """The text of a sound, by a recogniser."""

    def __init__(self, served: HostedRun, content: bytes, name: str, response_format: str) -> None:
        codec: Any = served.run.codec
        if not hasattr(codec, "sound"):
            raise APIError(400, f"{served.name} does not recognise speech; choose a recogniser", "model")
        if response_format not in ("json", "text", "verbose_json"):
            said = f"response_format: given {response_format[:20]!r}, allowed: json, text, verbose_json"
            raise APIError(400, said, "response_format")
        try:
            self.condition = codec.condition(content, 1)
        except AudioError as error:
            raise APIError(400, f"file: {error}".replace("the sound", name[:80] or "the file"), "file") from None
        mel = served.run.recipe.data.space().mel
        self.seconds = mel.samples(int(self.condition["frames"][0])) / mel.rate
        self.served, self.response_format = served, response_format

    def texts(self, owner: str = "") -> AsyncIterator[str]:
        """Submit, and give out the text."""

        def made() -> Iterator[str]:
            follower = self.served.run.drawing().follow()
            for _ in self.served.run.drawing().drafts(self.condition, 0, follower.update):
                yield str(follower.pieces[0])

        return stream_job(lambda deliver, end: Job(made(), deliver, end, owner), self.served)

    async def result(self, texts: AsyncIterator[str]) -> dict[str, Any] | str:
        """The response body."""
        text = ""
        async for text in texts:
            pass
        if self.response_format == "text":
            return text + "\n"
        more = {"task": "transcribe", "duration": self.seconds, "segments": []}
        usage = {"type": "duration", "seconds": round(self.seconds)}
        return {"text": text, "usage": usage} | (more if self.response_format == "verbose_json" else {})

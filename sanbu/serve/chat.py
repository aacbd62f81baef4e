"""POST /v1/chat/completions, whole or as it comes."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sanbu.serve.errors import APIError, translated
from sanbu.serve.hosted_run import Served
from sanbu.serve.request_builder import Asked, asked, check_schema, compact, form
from sanbu.serve.schemas import ChatBody, Tool
from sanbu.serve.streaming import Piece, Word
from sanbu.serve.tools import call_in, conversation, joined, required


class Chat:
    """One conversation's answers. `whole` or `stream`, once."""

    def __init__(self, served: Served, body: ChatBody) -> None:
        refuse(body)
        self.body, self.served = body, served
        self.tools: Sequence[Tool] = [] if body.tool_choice == "none" else body.tools or []
        self.forced = required(body)
        format_ = body.response_format
        named = format_.json_schema.schema_ if format_ and format_.json_schema else None
        schema = form(format_.type, named, served, "response_format") if format_ else None
        if self.forced is not None:
            check_schema(served, self.forced, "tools")
        prompt = served.ask(conversation(body.messages, self.tools)) if served.writes else []
        self.left_out: str | None = None
        if served.writes and self.tools and self.forced is None and len(prompt) >= served.context:
            self.tools, self.left_out = [], "tools"  # a model that may call none answers without
            prompt = served.ask(conversation(body.messages))
        top = (body.top_logprobs or 0) if body.logprobs else None
        most = body.max_completion_tokens or body.max_tokens
        expected = served.spell(joined(body.prediction.content)) if served.writes and body.prediction else []
        self.asked: Asked = asked(
            served, body, [prompt], most, top=top, schema=self.forced or schema, expected=expected
        )
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": "sanbu",
        }

    async def whole(self, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
        """The answers when all have ended."""
        texts, words, ends = gathered(self.asked)
        async for piece in pieces:
            texts[piece.index] += piece.text
            words[piece.index] += piece.words
            ends[piece.index] = piece.finish
        choices = [self._choice(index, texts[index], words[index], ends[index]) for index in range(len(texts))]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self.asked.usage()}

    def _choice(self, index: int, text: str, words: Sequence[Word], end: Any) -> dict[str, Any]:
        call = call_in(text, self.tools) if self.tools else None
        message: dict[str, Any] = {"role": "assistant", "content": None if call else text, "refusal": None}
        if call:
            message["tool_calls"], end = [call], "tool_calls" if end == "stop" else end
        return {"index": index, "message": message, "finish_reason": end, "logprobs": self._logprobs(words)}

    async def stream(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Chunks as the clients read them, the data of one event each."""
        try:
            for index in range(self.asked.n):
                yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
            held = [""] * self.asked.n
            async for piece in pieces:
                for chunk in self._said(piece, held):
                    yield chunk
            if self.body.stream_options and self.body.stream_options.include_usage:
                yield compact(
                    {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.asked.usage()}
                )
            yield "[DONE]"
        except Exception as error:
            yield compact(translated(error).body())

    def _said(self, piece: Piece, held: list[str]) -> list[str]:
        """The chunks of a piece. With tools, the answer is held until its end: it may be a call."""
        index, end = piece.index, piece.finish
        if self.tools:
            held[index] += piece.text
            if end is None:
                return []
        text = held[index] if self.tools else piece.text
        call = call_in(text, self.tools) if self.tools else None
        chunks: list[str] = []
        if call:
            begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
            chunks.append(self._chunk(index, {"tool_calls": [{"index": 0, **begun}]}))
            chunks.append(
                self._chunk(
                    index, {"tool_calls": [{"index": 0, "function": {"arguments": call["function"]["arguments"]}}]}
                )
            )
        elif text or piece.words:
            chunks.append(self._chunk(index, {"content": text}, words=piece.words))
        if end:
            chunks.append(self._chunk(index, {}, "tool_calls" if call and end == "stop" else end))
        return chunks

    def _chunk(self, index: int, delta: dict[str, Any], end: str | None = None, words: Sequence[Word] = ()) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": end, "logprobs": self._logprobs(words)}
        usage = {"usage": None} if self.body.stream_options and self.body.stream_options.include_usage else {}
        return compact({**self.head, "object": "chat.completion.chunk", "choices": [choice], **usage})

    def _logprobs(self, words: Sequence[Word]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        pieces = self.served.codec.tokenizer.pieces
        return {"content": [spelt(word, pieces) for word in words], "refusal": None}


def spelt(word: Word, pieces: Sequence[bytes]) -> dict[str, Any]:
    """A token with its bytes, and those it was chosen from."""
    top = [likely(pieces[token] if token < len(pieces) else b"", logprob) for token, logprob in word.top]
    return {**likely(word.spelling, word.logprob), "top_logprobs": top}


def likely(spelling: bytes, logprob: float) -> dict[str, Any]:
    """A token as text and bytes; what is impossible is as unlikely as a number can say."""
    return {"token": spelling.decode("utf-8", "replace"), "bytes": list(spelling), "logprob": max(logprob, -9999.0)}


def gathered(asked: Asked) -> tuple[list[str], list[list[Word]], list[Any]]:
    """Room for every answer's text, tokens and end."""
    count = len(asked.prompts) * asked.n
    return [""] * count, [[] for _ in range(count)], [None] * count


def refuse(body: ChatBody) -> None:
    """Name what would change the answer and is not done."""
    unknown = {
        "audio": body.audio,
        "functions": body.functions,
        "modalities": [m for m in body.modalities or () if m != "text"],
    }
    for name, value in unknown.items():
        if value:
            raise APIError(400, f"{name} is not supported", name)
    if body.top_logprobs and not body.logprobs:
        raise APIError(400, "top_logprobs needs logprobs", "top_logprobs")

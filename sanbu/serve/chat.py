"""POST /v1/chat/completions, with and without streaming."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sanbu.serve.conversation import conversation, join_text
from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun, PromptTooLong
from sanbu.serve.request_builder import (
    Answers,
    Generation,
    answer_grammar,
    build_generation,
    collected,
    compact,
    compile_schema,
)
from sanbu.serve.schemas import ChatBody, ChatMessage, Tool
from sanbu.serve.streaming import GeneratedToken, Piece
from sanbu.serve.tools import parse_call, required_call


class ChatCompletion:
    """The n answers to one conversation. Call either `response` or `stream`, once."""

    def __init__(self, served: HostedRun, body: ChatBody) -> None:
        check_chat(body)
        self.body, self.served = body, served
        self.tools: Sequence[Tool] = [] if body.tool_choice == "none" else body.tools or []
        self.forced = required_call(body)
        grammar = None if self.forced is None else compile_schema(served, self.forced, "tools")
        format_ = body.response_format
        named = format_.json_schema.schema_ if format_ and format_.json_schema else None
        if format_ and grammar is None:
            grammar = answer_grammar(format_.type, named, served, "response_format")
        self.left_out: str | None = None
        for name in unread(body.messages):
            self._leave_out(f"messages.{name}")
        prompt = self._prompt() if served.writes else []
        top = (body.top_logprobs or 0) if body.logprobs else None
        most = body.max_completion_tokens or body.max_tokens
        expected = served.encode_text(join_text(body.prediction.content)) if served.writes and body.prediction else []
        self.generation: Generation = build_generation(
            served, body, [prompt], most, top=top, grammar=grammar, expected=expected
        )
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    def _prompt(self) -> list[int]:
        """The ids of the conversation. If a call is optional and the tools do not fit, they are dropped."""
        if self.body.continue_final_message:
            return self._begun_answer()
        try:
            prompt = self.served.encode_chat(conversation(self.body.messages, self.tools))
        except PromptTooLong:
            if not self.tools or self.forced is not None:
                raise
            prompt = [0] * self.served.context
        if self.tools and self.forced is None and len(prompt) >= self.served.context:
            self.tools = []
            self._leave_out("tools")
            prompt = self.served.encode_chat(conversation(self.body.messages))
        return prompt

    def _begun_answer(self) -> list[int]:
        """The ids of the conversation up to the end of the answer that its last message begins."""
        *before, last = self.body.messages
        if last.role != "assistant" or last.tool_calls or not before:
            line = "continue_final_message: the last message must be a text of the assistant, after others"
            raise APIError(400, line, "continue_final_message")
        begun = self.served.encode_text(join_text(last.content or ""))
        return [*self.served.encode_chat(conversation(before, self.tools)), *begun]

    def _leave_out(self, name: str) -> None:
        """Note a field that the answer does not depend on although it was given."""
        self.left_out = f"{self.left_out}, {name}" if self.left_out else name

    async def result(self, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
        """The response body, once all answers are finished."""
        return self.response(await collected(self.generation, pieces))

    def response(self, answers: Answers) -> dict[str, Any]:
        """The response body."""
        each = zip(answers.texts, answers.tokens, answers.ends, strict=True)
        choices = [self._choice(index, *answer) for index, answer in enumerate(each)]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self.generation.usage()}

    def _choice(self, index: int, text: str, tokens: Sequence[GeneratedToken], end: Any) -> dict[str, Any]:
        call = parse_call(text, self.tools) if self.tools else None
        message: dict[str, Any] = {"role": "assistant", "content": None if call else text, "refusal": None}
        if call:
            message["tool_calls"], end = [call], "tool_calls" if end == "stop" else end
        return {"index": index, "message": message, "finish_reason": end, "logprobs": self._logprobs(tokens)}

    async def stream(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Chunks of the stream: the data of one server-sent event each."""
        try:
            for index in range(self.generation.n):
                yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
            held = [Held() for _ in range(self.generation.n)]
            async for piece in pieces:
                for chunk in self._chunks(piece, held):
                    yield chunk
            if self.body.stream_options and self.body.stream_options.include_usage:
                yield compact(
                    {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.generation.usage()}
                )
            yield "[DONE]"
        except Exception as error:
            yield compact(api_error(error).body())

    def _chunks(self, piece: Piece, held: list[Held]) -> list[str]:
        """The chunks of a piece. With tools the answer is held back as long as it may become a call."""
        index, end, state = piece.index, piece.finish, held[piece.index]
        state.text += piece.text
        state.tokens += piece.tokens
        maybe = bool(self.tools) and not state.sent and state.text.lstrip()[:1] in ("", "{")
        if maybe and end is None:
            return []
        call = parse_call(state.text, self.tools) if maybe else None
        chunks = self._call_chunks(index, call, state) if call else self._text_chunks(index, state)
        if end:
            chunks.append(self._chunk(index, {}, "tool_calls" if call and end == "stop" else end))
        return chunks

    def _text_chunks(self, index: int, state: Held) -> list[str]:
        text, tokens = state.take()
        return [self._chunk(index, {"content": text}, tokens=tokens)] if text or tokens else []

    def _call_chunks(self, index: int, call: dict[str, Any], state: Held) -> list[str]:
        """A chunk with the name of the function and the log-probabilities, and one with the arguments."""
        _, tokens = state.take()
        begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        rest = {"arguments": call["function"]["arguments"]}
        return [
            self._chunk(index, {"tool_calls": [{"index": 0, **begun}]}, tokens=tokens),
            self._chunk(index, {"tool_calls": [{"index": 0, "function": rest}]}),
        ]

    def _chunk(
        self, index: int, delta: dict[str, Any], end: str | None = None, tokens: Sequence[GeneratedToken] = ()
    ) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": end, "logprobs": self._logprobs(tokens)}
        usage = {"usage": None} if self.body.stream_options and self.body.stream_options.include_usage else {}
        return compact({**self.head, "object": "chat.completion.chunk", "choices": [choice], **usage})

    def _logprobs(self, tokens: Sequence[GeneratedToken]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        pieces = self.served.codec.tokenizer.pieces
        return {"content": [logprob_entry(token, pieces) for token in tokens], "refusal": None}


@dataclass
class Held:
    """What of a streamed answer is not sent yet. sent: something was, so the answer is no call."""

    text: str = ""
    tokens: list[GeneratedToken] = field(default_factory=list)
    sent: bool = False

    def take(self) -> tuple[str, list[GeneratedToken]]:
        """The text and the tokens, which count as sent."""
        taken = self.text, self.tokens
        self.text, self.tokens, self.sent = "", [], self.sent or bool(self.text or self.tokens)
        return taken


def logprob_entry(token: GeneratedToken, pieces: Sequence[bytes]) -> dict[str, Any]:
    """A token and its most likely alternatives, as an entry of `logprobs.content`."""
    top = [token_entry(pieces[token] if token < len(pieces) else b"", logprob) for token, logprob in token.top]
    return {**token_entry(token.spelling, token.logprob), "top_logprobs": top}


def token_entry(spelling: bytes, logprob: float) -> dict[str, Any]:
    """Text, bytes and log-probability of a token; -inf becomes -9999, as in OpenAI's API."""
    return {"token": spelling.decode("utf-8", "replace"), "bytes": list(spelling), "logprob": max(logprob, -9999.0)}


def unread(messages: Sequence[ChatMessage]) -> list[str]:
    """The fields of messages that are told to no template: names, and what clients add to the answers they got."""
    calls = [call for message in messages for call in message.tool_calls or ()]
    given = {
        "name": [message.name for message in messages],
        "parsed": [message.parsed for message in messages],
        "provider_specific_fields": [message.provider_specific_fields for message in messages],
        "tool_calls.provider_specific_fields": [call.provider_specific_fields for call in calls],
        "tool_calls.function.parsed_arguments": [call.function.parsed_arguments for call in calls],
    }
    return [name for name, values in given.items() if any(value is not None for value in values)]


def check_chat(body: ChatBody) -> None:
    """Raise APIError for fields that are not supported and would change the answer."""
    unknown = {
        "audio": body.audio,
        "modalities": [m for m in body.modalities or () if m != "text"],
    }
    for name, value in unknown.items():
        if value:
            raise APIError(400, f"{name} is not supported", name)
    if body.add_generation_prompt not in (None, not body.continue_final_message):
        raise APIError(
            400, "add_generation_prompt: allowed: the opposite of continue_final_message", "add_generation_prompt"
        )
    if body.top_logprobs and not body.logprobs:
        raise APIError(400, "top_logprobs needs logprobs: true", "top_logprobs")

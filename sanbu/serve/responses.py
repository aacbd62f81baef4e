"""POST /v1/responses, text only, with and without streaming. Stateless: the client sends the whole conversation."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from sanbu.serve.conversation import conversation
from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.request_builder import Answers, Generation, answer_grammar, build_generation, compact
from sanbu.serve.schemas import ChatMessage, ResponseBody, SamplingBody
from sanbu.serve.streaming import Piece


class ModelResponse:
    """One model response. Call either `response` or `stream`, once."""

    def __init__(self, served: HostedRun, body: ResponseBody) -> None:
        for name in ("previous_response_id", "conversation", "background", "tools"):
            if getattr(body, name):
                raise APIError(
                    400,
                    f"{name} is not supported; send the whole conversation as input, or use /v1/chat/completions",
                    name,
                )
        self.body = body
        said = [ChatMessage(role="user", content=body.input)] if isinstance(body.input, str) else list(body.input)
        if body.instructions:
            said = [ChatMessage(role="system", content=body.instructions), *said]
        wanted = body.text.format if body.text else None
        grammar = answer_grammar(wanted.type, wanted.schema_, served, "text.format") if wanted else None
        drawing = SamplingBody(model=body.model, temperature=body.temperature, top_p=body.top_p)
        prompt = served.encode_chat(conversation(said)) if served.writes else []
        self.generation: Generation = build_generation(
            served, drawing, [prompt], body.max_output_tokens, grammar=grammar
        )
        self.id, self.item = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.served = served

    def response(self, answers: Answers) -> dict[str, Any]:
        """The response body."""
        return self._response(answers.texts[0], answers.ends[0])

    async def stream(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[tuple[str, str]]:
        """Pairs of event name and data."""
        number = 0

        def event(kind: str, **content: Any) -> tuple[str, str]:
            nonlocal number
            number += 1
            return kind, compact({"type": kind, "sequence_number": number - 1, **content})

        place = {"item_id": self.item, "output_index": 0, "content_index": 0}
        try:
            for kind in ("response.created", "response.in_progress"):
                yield event(kind, response=self._response("", None))
            yield event(
                "response.output_item.added", output_index=0, item=self._item("", "in_progress") | {"content": []}
            )
            yield event("response.content_part.added", **place, part=part(""))
            text, end = "", None
            async for piece in pieces:
                text, end = text + piece.text, piece.finish
                if piece.text:
                    yield event("response.output_text.delta", **place, delta=piece.text, logprobs=[])
            yield event("response.output_text.done", **place, text=text, logprobs=[])
            yield event("response.content_part.done", **place, part=part(text))
            yield event("response.output_item.done", output_index=0, item=self._item(text, "completed"))
            answer = self._response(text, end)
            yield event("response." + answer["status"], response=answer)
        except Exception as error:
            wrong = api_error(error)
            yield event("error", code=wrong.code, message=str(wrong), param=wrong.param)

    def _item(self, text: str, status: str) -> dict[str, Any]:
        return {"id": self.item, "type": "message", "role": "assistant", "status": status, "content": [part(text)]}

    def _response(self, text: str, end: str | None) -> dict[str, Any]:
        status = {None: "in_progress", "length": "incomplete"}.get(end, "completed")
        body = self.body
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if end == "length" else None,
            "instructions": body.instructions, "metadata": body.metadata or {}, "model": self.served.name,
            "output": [] if end is None else [self._item(text, status)],
            "parallel_tool_calls": False, "tool_choice": "none", "tools": [],
            "temperature": body.temperature, "top_p": body.top_p,
            "max_output_tokens": body.max_output_tokens, "previous_response_id": None,
            "usage": None if end is None else self._usage(),
        }  # fmt: skip

    def _usage(self) -> dict[str, Any]:
        """Token counts under the field names of this endpoint."""
        usage = self.generation.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }


def part(text: str) -> dict[str, Any]:
    """A content part of an output item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

"""POST /v1/responses: text and calls of functions, whole or streamed. The client sends the whole conversation."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.request_builder import Answers, Generation, compact
from sanbu.serve.response_input import chat_of
from sanbu.serve.schemas import ResponseBody, ResponseNamedTool
from sanbu.serve.streaming import Piece
from sanbu.serve.tools import parse_call


class ModelResponse:
    """One model response. Call either `response` or `stream`, once."""

    def __init__(self, served: HostedRun, body: ResponseBody) -> None:
        for name in ("previous_response_id", "conversation", "background"):
            if getattr(body, name):
                line = f"{name} is not supported: no conversation is kept; send the whole conversation as input"
                raise APIError(400, line, name)
        self.body, self.served = body, served
        chat = chat_of(served, body)
        self.tools, self.left_out = chat.tools, chat.left_out
        self.generation: Generation = chat.generation
        self.id, self.item = f"resp_{uuid.uuid4().hex}", uuid.uuid4().hex
        self.created = int(time.time())

    def response(self, answers: Answers) -> dict[str, Any]:
        """The response body."""
        return self._response(answers.texts[0], answers.ends[0], self._call(answers.texts[0]))

    async def stream(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[tuple[str, str]]:
        """Pairs of event name and data."""
        events = Events()
        try:
            for kind in ("response.created", "response.in_progress"):
                yield events.event(kind, response=self._response("", None))
            text, end, sent = "", None, False
            async for piece in pieces:
                text, end = text + piece.text, piece.finish
                if self.tools and not sent and text.lstrip()[:1] in ("", "{"):
                    continue  # it may become a call
                for event in self._text_events(events, piece.text if sent else text, sent):
                    yield event
                sent = True
            call = None if sent else self._call(text)
            last = self._call_events(events, call) if call else self._end_events(events, text, sent)
            for event in last:
                yield event
            answer = self._response(text, end, call)
            yield events.event("response." + answer["status"], response=answer)
        except Exception as error:
            wrong = api_error(error)
            yield events.event("error", code=wrong.code, message=str(wrong), param=wrong.param)

    def _text_events(self, events: Events, text: str, begun: bool) -> Iterator[tuple[str, str]]:
        """New text; before the first, the message and its part."""
        place = self._place()
        if not begun:
            item = self._message("", "in_progress") | {"content": []}
            yield events.event("response.output_item.added", output_index=0, item=item)
            yield events.event("response.content_part.added", **place, part=part(""))
        if text:
            yield events.event("response.output_text.delta", **place, delta=text, logprobs=[])

    def _end_events(self, events: Events, text: str, begun: bool) -> Iterator[tuple[str, str]]:
        """The end of a message."""
        place = self._place()
        if not begun:
            yield from self._text_events(events, text, False)
        yield events.event("response.output_text.done", **place, text=text, logprobs=[])
        yield events.event("response.content_part.done", **place, part=part(text))
        yield events.event("response.output_item.done", output_index=0, item=self._message(text, "completed"))

    def _call_events(self, events: Events, call: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """A call, which is known as a whole only."""
        place = {"item_id": call["id"], "output_index": 0}
        begun = {**call, "arguments": "", "status": "in_progress"}
        yield events.event("response.output_item.added", output_index=0, item=begun)
        yield events.event("response.function_call_arguments.delta", **place, delta=call["arguments"])
        done = {"name": call["name"], "arguments": call["arguments"]}
        yield events.event("response.function_call_arguments.done", **place, **done)
        yield events.event("response.output_item.done", output_index=0, item=call)

    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.item}", "output_index": 0, "content_index": 0}

    def _message(self, text: str, status: str) -> dict[str, Any]:
        item = {"id": f"msg_{self.item}", "type": "message", "role": "assistant"}
        return {**item, "status": status, "content": [part(text)]}

    def _call(self, text: str) -> dict[str, Any] | None:
        """The call that an answer consists of, as an output item."""
        found = parse_call(text, self.tools) if self.tools else None
        if found is None:
            return None
        item = {"id": f"fc_{self.item}", "type": "function_call", "status": "completed", "call_id": found["id"]}
        return {**item, **found["function"]}

    def _response(self, text: str, end: str | None, call: dict[str, Any] | None = None) -> dict[str, Any]:
        status = {None: "in_progress", "length": "incomplete"}.get(end, "completed")
        body = self.body
        item = call or self._message(text, status)
        choice = body.tool_choice.model_dump() if isinstance(body.tool_choice, ResponseNamedTool) else body.tool_choice
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if end == "length" else None,
            "instructions": body.instructions, "metadata": body.metadata or {}, "model": self.served.name,
            "output": [] if end is None else [item],
            "parallel_tool_calls": False, "tool_choice": choice or "auto",
            "tools": [tool.model_dump() for tool in body.tools or ()],
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


class Events:
    """Numbers the events of one stream."""

    def __init__(self) -> None:
        self.number = 0

    def event(self, kind: str, **content: Any) -> tuple[str, str]:
        """The name and the data of the next event."""
        self.number += 1
        return kind, compact({"type": kind, "sequence_number": self.number - 1, **content})


def part(text: str) -> dict[str, Any]:
    """A content part of an output item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

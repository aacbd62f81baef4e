"""The messages of a request as a conversation of the roles system, user and assistant, which every template knows.

A tool call is told as JSON. The results of several calls are told in the order of the calls, each after its call.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sanbu.codecs.chat import Message
from sanbu.config import nearest
from sanbu.serve.errors import APIError
from sanbu.serve.request_builder import compact
from sanbu.serve.schemas import ChatMessage, TextPart, Tool, ToolCall

HEAD = 'Functions you may call by answering {"name": ..., "arguments": {...}}: '


def conversation(messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[Message]:
    """Messages with the roles system, user and assistant; tools are listed in a system message. Raises APIError."""
    told: list[Message] = []
    if tools:
        functions = [tool.function.model_dump(exclude_none=True) for tool in tools]
        told.append({"role": "system", "content": HEAD + compact(functions)})
    calls: Sequence[ToolCall] = ()
    place = 0
    while place < len(messages):
        message = messages[place]
        if message.role == "tool":
            results = following_results(messages, place)
            told += told_results(calls, results, place)
            place += len(results)
            continue
        role = "system" if message.role == "developer" else message.role
        told.append({"role": role, "content": message_text(message)})
        calls = message.tool_calls or ()
        place += 1
    return merge_system(told)


def following_results(messages: Sequence[ChatMessage], place: int) -> list[ChatMessage]:
    """The results of tools from a place on."""
    found: list[ChatMessage] = []
    for message in messages[place:]:
        if message.role != "tool":
            break
        found.append(message)
    return found


def told_results(calls: Sequence[ToolCall], results: Sequence[ChatMessage], place: int) -> list[Message]:
    """Results as messages of the user: those of several calls in the order of the calls, each after its call."""
    texts = [message_text(result) for result in results]
    if len(calls) < 2:  # there is nothing to mix up
        return [{"role": "user", "content": text} for text in texts]
    ids = [call.id for call in calls]
    found: dict[str, str] = {}
    for number, (result, text) in enumerate(zip(results, texts, strict=True), place):
        given = result.tool_call_id or ""
        field = f"messages.{number}.tool_call_id"
        if given not in ids or ids.count(given) > 1:
            allowed = ", ".join(map(repr, ids))[:200]
            raise APIError(400, f"{field}: given {given[:80]!r}, allowed: {allowed}{nearest(given[:80], ids)}", field)
        if given in found:
            raise APIError(400, f"{field}: given {given[:80]!r} a second time; give each call one result", field)
        found[given] = text
    return [{"role": "user", "content": f"{call_text(call)}: {found[call.id]}"} for call in calls if call.id in found]


def message_text(message: ChatMessage) -> str:
    """The text of a message, followed by its tool calls as JSON."""
    text = join_text(message.content or "")
    calls = [call_text(call) for call in message.tool_calls or ()]
    return "\n".join([text, *calls] if text else calls) if calls else text


def call_text(call: ToolCall) -> str:
    """A tool call as JSON."""
    return compact({"name": call.function.name, "arguments": parse_json(call.function.arguments)})


def join_text(content: str | Sequence[TextPart]) -> str:
    """Message content as one string."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def parse_json(text: str) -> Any:
    """The parsed JSON, or the text itself if it is not JSON or nested too deeply."""
    try:
        found = json.loads(text)
        compact(found)
    except (ValueError, RecursionError):
        return text
    return found


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with consecutive system messages joined."""
    made: list[Message] = []
    for message in messages:
        if made and message["role"] == made[-1]["role"] == "system":
            made[-1] = {"role": "system", "content": made[-1]["content"] + "\n" + message["content"]}
        else:
            made.append(message)
    return made

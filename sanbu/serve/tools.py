"""Tool calls: the tools are listed in a system message, a call is JSON {"name": ..., "arguments": {...}}.

A required call is enforced by constrained decoding; otherwise an answer of this form counts as a call.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sanbu.codecs.chat import Message
from sanbu.serve.errors import APIError
from sanbu.serve.json_schema import SchemaError, local
from sanbu.serve.request_builder import compact
from sanbu.serve.schemas import ChatBody, ChatMessage, NamedTool, TextPart, Tool


def conversation(messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[Message]:
    """Messages with the roles system, user and assistant; tools are listed in a system message."""
    told: list[Message] = []
    if tools:
        functions = [tool.function.model_dump(exclude_none=True) for tool in tools]
        told.append(
            {
                "role": "system",
                "content": 'Functions you may call by answering {"name": ..., "arguments": {...}}: '
                + compact(functions),
            }
        )
    for message in messages:
        role = {"developer": "system", "tool": "user"}.get(message.role, message.role)
        told.append({"role": role, "content": message_text(message)})
    return merge_system(told)


def message_text(message: ChatMessage) -> str:
    """The text of a message, followed by its tool calls as JSON."""
    text = join_text(message.content or "")
    calls = [
        compact({"name": call.function.name, "arguments": parse_json(call.function.arguments)})
        for call in message.tool_calls or ()
    ]
    return "\n".join([text, *calls] if text else calls) if calls else text


def join_text(content: str | Sequence[TextPart]) -> str:
    """Message content as one string."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def parse_json(text: str) -> Any:
    """The parsed JSON, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with consecutive system messages joined."""
    made: list[Message] = []
    for message in messages:
        if made and message["role"] == made[-1]["role"] == "system":
            made[-1] = {"role": "system", "content": made[-1]["content"] + "\n" + message["content"]}
        else:
            made.append(message)
    return made


def required_call(body: ChatBody) -> dict[str, Any] | None:
    """The schema of a required call; None if a call is optional."""
    choice, tools = body.tool_choice, body.tools or []
    if isinstance(choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
        if not tools:
            raise APIError(400, f"tool_choice: given {choice.function.name!r}, which is not in tools", "tool_choice")
    elif choice != "required":
        return None
    if not tools:
        raise APIError(400, "tool_choice: a call is required, but no tools are given; add tools", "tool_choice")
    return calls_schema(tools)


def calls_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The schema of a call to one of the tools; the parameters of each are a definition. Raises APIError."""
    places = [f"/$defs/{number}" for number in range(len(tools))]
    forms = [call_schema(tool, place) for tool, place in zip(tools, places, strict=True)]
    made = forms[0] if len(forms) == 1 else {"anyOf": forms}
    try:
        parameters = {
            str(i): local(parameters_of(tool), place) for i, (tool, place) in enumerate(zip(tools, places, strict=True))
        }
    except SchemaError as error:
        raise APIError(400, f"tools: {error}", "tools") from None
    return {**made, "$defs": parameters}


def call_schema(tool: Tool, place: str) -> dict[str, Any]:
    """The schema of a call to one tool, whose parameters are defined at a place in the document."""
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, "arguments": {"$ref": f"#{place}"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, which are an object; without parameters, one without properties."""
    given = tool.function.parameters or {"properties": {}, "additionalProperties": False}
    shaped = {"type", "$ref", "anyOf", "oneOf", "allOf", "const", "enum"} & set(given)
    return given if shaped else {"type": "object", **given}


def parse_call(text: str, tools: Sequence[Tool]) -> dict[str, Any] | None:
    """The tool call that an answer consists of; None if it is not a call."""
    found = parse_json(text.strip())
    known = {tool.function.name for tool in tools}
    if not isinstance(found, dict) or set(found) != {"name", "arguments"} or found["name"] not in known:
        return None
    function = {"name": found["name"], "arguments": compact(found["arguments"])}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}

"""Functions a model may call: told in the system's words, answered as JSON {"name": ..., "arguments": {...}}.

Where a call is required the answer is held to that form; else an answer that has the form is taken for a call.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sanbu.codecs.chat import Message
from sanbu.serve.errors import APIError
from sanbu.serve.request_builder import compact
from sanbu.serve.schemas import ChatBody, ChatMessage, NamedTool, TextPart, Tool


def conversation(messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[Message]:
    """Messages as a run knows them: system, user, assistant."""
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
        told.append({"role": role, "content": words(message)})
    return merged(told)


def words(message: ChatMessage) -> str:
    """What a message says, its calls as the model writes them."""
    text = joined(message.content or "")
    calls = [
        compact({"name": call.function.name, "arguments": loaded(call.function.arguments)})
        for call in message.tool_calls or ()
    ]
    return "\n".join([text, *calls] if text else calls) if calls else text


def joined(content: str | Sequence[TextPart]) -> str:
    """A content as one text."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def loaded(text: str) -> Any:
    """JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def merged(messages: Sequence[Message]) -> list[Message]:
    """System messages that follow each other as one."""
    made: list[Message] = []
    for message in messages:
        if made and message["role"] == made[-1]["role"] == "system":
            made[-1] = {"role": "system", "content": made[-1]["content"] + "\n" + message["content"]}
        else:
            made.append(message)
    return made


def required(body: ChatBody) -> dict[str, Any] | None:
    """The schema of the calls that must come; None where the model may do as it likes."""
    choice, tools = body.tool_choice, body.tools or []
    if isinstance(choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
        if not tools:
            raise APIError(400, f"tool_choice: there is no tool {choice.function.name!r}", "tool_choice")
    elif choice != "required":
        return None
    if not tools:
        raise APIError(400, "tool_choice: a call is required, but no tools are given", "tool_choice")
    forms = [form(tool) for tool in tools]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def form(tool: Tool) -> dict[str, Any]:
    """The schema of a call of one tool."""
    arguments = tool.function.parameters or {"type": "object", "properties": {}, "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def call_in(text: str, tools: Sequence[Tool]) -> dict[str, Any] | None:
    """The call that a whole answer is, if it is one."""
    found = loaded(text.strip())
    known = {tool.function.name for tool in tools}
    if not isinstance(found, dict) or set(found) != {"name", "arguments"} or found["name"] not in known:
        return None
    function = {"name": found["name"], "arguments": compact(found["arguments"])}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}

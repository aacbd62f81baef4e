"""Tool calls: the tools are listed in a system message, a call is JSON {"name": ..., "arguments": {...}}.

A required call is enforced by constrained decoding; otherwise an answer of this form counts as a call.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sanbu.serve.conversation import parse_json
from sanbu.serve.errors import APIError
from sanbu.serve.json_schema import SchemaError, local
from sanbu.serve.request_builder import compact
from sanbu.serve.schemas import ChatBody, NamedTool, Tool


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
    if not isinstance(found, dict) or set(found) != {"name", "arguments"} or str(found["name"]) not in known:
        return None
    function = {"name": found["name"], "arguments": compact(found["arguments"])}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}

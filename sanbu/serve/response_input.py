"""The input of the Responses API as a conversation of the chat API."""

from __future__ import annotations

from typing import Any

from sanbu.serve.chat import ChatCompletion
from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.schemas import (
    ChatBody,
    ChatMessage,
    Function,
    FunctionCall,
    FunctionCallItem,
    FunctionOutputItem,
    JSONSchema,
    NamedFunction,
    NamedTool,
    ResponseBody,
    ResponseFormat,
    ResponseNamedTool,
    Tool,
    ToolCall,
)

NAMES = {"response_format": "text.format", "messages": "input"}  # of fields in this API


def chat_of(served: HostedRun, body: ResponseBody) -> ChatCompletion:
    """The chat completion that gives the answer. Raises APIError that names the fields of this API."""
    choice: Any = body.tool_choice
    if isinstance(choice, ResponseNamedTool):
        choice = NamedTool(type="function", function=NamedFunction(name=choice.name))
    asked = ChatBody.model_construct(
        model=body.model,
        messages=messages_of(body),
        tools=[tool_of(tool) for tool in body.tools or ()] or None,
        tool_choice=choice,
        response_format=format_of(body),
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
    )
    try:
        return ChatCompletion(served, asked)
    except APIError as error:
        name = NAMES.get(error.param or "", error.param)
        line = str(error)
        if error.param in NAMES and line.startswith(f"{error.param}: "):
            line = f"{name}: {line.removeprefix(f'{error.param}: ')}"
        raise APIError(error.status, line, name, error.code, error.wait) from None


def tool_of(tool: Any) -> Tool:
    """A tool as the chat API describes it."""
    function = Function(name=tool.name, description=tool.description, parameters=tool.parameters)
    return Tool(type="function", function=function)


def format_of(body: ResponseBody) -> ResponseFormat | None:
    """The wanted form of the answer."""
    wanted = body.text.format if body.text else None
    if wanted is None:
        return None
    schema = None if wanted.schema_ is None else JSONSchema(name=wanted.name, schema=wanted.schema_)
    return ResponseFormat(type=wanted.type, json_schema=schema)


def messages_of(body: ResponseBody) -> list[ChatMessage]:
    """The conversation: instructions, then the items of the input; calls belong to the message before them."""
    said = [ChatMessage(role="system", content=body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*said, ChatMessage(role="user", content=body.input)]
    for item in body.input:
        if isinstance(item, FunctionOutputItem):
            said.append(ChatMessage(role="tool", content=item.output, tool_call_id=item.call_id))
        elif isinstance(item, FunctionCallItem):
            call = ToolCall(id=item.call_id, function=FunctionCall(name=item.name, arguments=item.arguments))
            last = said[-1] if said and said[-1].role == "assistant" else None
            if last is None:
                said.append(ChatMessage(role="assistant", tool_calls=[call]))
            else:
                said[-1] = last.model_copy(update={"tool_calls": [*(last.tool_calls or ()), call]})
        else:
            said.append(item)
    return said

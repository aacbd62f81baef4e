"""Request bodies of the OpenAI API. Unknown fields are ignored; known but unsupported ones are rejected by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=1 << 20)]
Ids = list[Annotated[int, Field(ge=0, lt=1 << 31)]]


class Body(BaseModel):
    """A JSON body. Strict types: a number must not be sent as a string."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class TextPart(Body):
    type: Literal["text", "input_text", "output_text"]
    text: Text


class FunctionCall(Body):
    name: Text
    arguments: Text


class ToolCall(Body):
    id: Text = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(min_length=1)] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(Body):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class JSONSchema(Body):
    name: str = ""
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None


class StreamOptions(Body):
    include_usage: bool | None = None


class SamplingBody(Body):
    """Sampling parameters. Extension: strategy, with the fields of a strategy, such as {"kind": "beam-search"}."""

    model: Text
    n: int | None = Field(None, ge=1, le=128)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1 << 20)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    strategy: dict[str, Any] | None = None
    user: str | None = None


class PredictedOutput(Body):
    """Predicted output, such as a text to be edited; it affects the speed only."""

    type: Literal["content"]
    content: Text | Annotated[list[TextPart], Field(min_length=1)]


class ChatBody(SamplingBody):
    """POST /v1/chat/completions"""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    prediction: PredictedOutput | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    functions: list[Any] | None = None


class CompletionBody(SamplingBody):
    """POST /v1/completions"""

    prompt: Text | list[Text] | Ids | list[Ids]
    max_tokens: int | None = Field(None, ge=0, lt=1 << 31)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1, le=20)


class ResponseTextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ResponseText(Body):
    format: ResponseTextFormat | None = None


class ResponseMessage(ChatMessage):
    type: Literal["message"] = "message"


class ResponseBody(Body):
    """POST /v1/responses"""

    model: Text
    input: Text | Annotated[list[ResponseMessage], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    text: ResponseText | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    tools: list[Any] | None = None


class ImageBody(Body):
    """POST /v1/images/generations"""

    prompt: Text
    model: Text | None = None
    n: int | None = Field(None, ge=1, le=100)
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png"] | None = None
    seed: int | None = Field(None, ge=0, lt=1 << 62)
    strategy: dict[str, Any] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=16)


class EmbeddingBody(Body):
    """POST /v1/embeddings"""

    model: Text
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)] | Ids | list[Ids]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None


class TokenizeBody(Body):
    """POST /tokenize"""

    model: Text | None = None
    prompt: Text | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool | None = None


class DetokenizeBody(Body):
    """POST /detokenize"""

    model: Text | None = None
    tokens: Ids

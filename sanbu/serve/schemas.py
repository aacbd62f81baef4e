"""Request bodies of the OpenAI API. A field that is not listed here is refused by name, unless its value is null.

Fields that do not concern the answer itself (`user`, `metadata`, `store` and the like) are accepted without effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Text = Annotated[str, Field(max_length=1 << 22)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(fail_fast=True)]
Texts = Annotated[list[Text], Field(fail_fast=True, max_length=2048)]
ManyIds = Annotated[list[Ids], Field(fail_fast=True, max_length=2048)]
Most = 4096  # messages of a conversation, and parts of a message


def at_most(most: int) -> BeforeValidator:
    """Refuse an object with more members before they are looked at."""

    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > most:
            told = {"actual_length": len(given), "max_length": most}
            raise PydanticCustomError("too_long", "at most {max_length} items", told)
        return given

    return BeforeValidator(check)


UNSUPPORTED = {  # of OpenAI's API and of other servers
    "function_call", "functions", "audio", "web_search_options", "reasoning_effort", "verbosity", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "stop_token_ids", "min_tokens",
    "ignore_eos", "bad_words", "prompt_logprobs",
    "chat_template", "chat_template_kwargs", "echo", "best_of", "include", "truncation", "prompt", "reasoning",
    "max_tool_calls", "style", "output_compression", "input_fidelity", "mask", "image", "cache_control",
    "truncate_prompt_tokens", "length_penalty", "use_beam_search", "skip_special_tokens", "mirostat", "top_a",
}  # fmt: skip


class Body(BaseModel):
    """A JSON body. Strict types: a number must not be sent as a string."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, given: Any) -> Any:
        """Leave out unknown fields that are null, which means not set; of the others only the first is told."""
        if not isinstance(given, dict):
            return given
        known = fields_of(cls)
        if given.keys() <= known:
            return given
        strange = next((name for name, value in given.items() if name not in known and value is not None), None)
        return {name: value for name, value in given.items() if name in known or name == strange}


@cache
def fields_of(cls: type[Body]) -> frozenset[str]:
    """The names of the fields of a body in JSON."""
    return frozenset(info.alias or name for name, info in cls.model_fields.items())


class Ignored(Body):
    """Fields that do not concern the answer: who asks, and what OpenAI stores, bills or moderates."""

    user: str | None = None
    metadata: Annotated[dict[str, Any] | None, at_most(64)] = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


class TextPart(Body):
    type: Literal["text", "input_text", "output_text"]
    text: Text


Parts = Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=Most)]


class FunctionCall(Body):
    name: Text
    arguments: Text
    parsed_arguments: Any = None  # as OpenAI's Python client adds them


class ToolCall(Body):
    id: Text = ""
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None  # as in the chunks of a stream
    provider_specific_fields: Any = None


class EarlierAnswer(Body):
    """What clients add to an answer and send back with it. The conversation has it already; see left_out."""

    parsed: Any = None  # OpenAI's Python client: the content, as a Pydantic model
    provider_specific_fields: Any = None  # LiteLLM: fields that it does not know, such as refusal


class ChatMessage(EarlierAnswer):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: Text | Parts | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=128)] | None = None
    tool_call_id: Text | None = None
    name: Text | None = None  # told to no template; see ChatCompletion.left_out
    refusal: Text | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


Messages = Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=Most)]


class Function(Body):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # a required call always follows its schema


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
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # there is none


class SamplingBody(Ignored):
    """Sampling parameters. Extension: strategy, with the fields of a strategy, such as {"kind": "beam-search"}."""

    model: Text
    n: int | None = Field(None, ge=1, le=128)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1 << 20)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Text | Annotated[list[Text], Field(fail_fast=True, max_length=4)] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]] | None, at_most(4096)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    strategy: Annotated[dict[str, Any] | None, at_most(64)] = None


class PredictedOutput(Body):
    """Predicted output, such as a text to be edited; it affects the speed only."""

    type: Literal["content"]
    content: Text | Parts


class ChatBody(SamplingBody):
    """POST /v1/chat/completions"""

    messages: Messages
    max_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    prediction: PredictedOutput | None = None
    continue_final_message: bool | None = None  # as in vLLM: the answer goes on where the last message ends
    add_generation_prompt: bool | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None

    @field_validator("tool_choice", mode="before")
    @classmethod
    def known_choice(cls, given: Any) -> Any:
        """Refuse other kinds of choices, such as allowed_tools, by name."""
        if isinstance(given, dict) and given.get("type") != "function":
            kind = str(given.get("type"))[:80]
            raise ValueError(f"given the type {kind!r}, allowed: 'none', 'auto', 'required' or the type 'function'")
        return given


class CompletionBody(SamplingBody):
    """POST /v1/completions"""

    prompt: Text | Texts | Ids | ManyIds
    max_tokens: int | None = Field(None, ge=0, lt=1 << 31)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1, le=20)


class ResponseTextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    strict: bool | None = None
    description: str | None = None


class ResponseText(Body):
    format: ResponseTextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponseMessage(ChatMessage):
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None


class FunctionCallItem(Body):
    """A call in the input of the Responses API."""

    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text
    id: str | None = None
    status: str | None = None


class FunctionOutputItem(Body):
    """The result of a call in the input of the Responses API."""

    type: Literal["function_call_output"]
    call_id: Text
    output: Text
    id: str | None = None
    status: str | None = None


class ResponseTool(Function):
    type: Literal["function"]


class ResponseNamedTool(NamedFunction):
    type: Literal["function"]


ResponseItem = ResponseMessage | FunctionCallItem | FunctionOutputItem


class ResponseBody(Ignored):
    """POST /v1/responses"""

    model: Text
    input: Text | Annotated[list[ResponseItem], Field(fail_fast=True, min_length=1, max_length=Most)]
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    text: ResponseText | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["auto", "none", "required"] | ResponseNamedTool | None = None
    truncation: Literal["disabled"] | None = None
    include: Annotated[list[Any], Field(max_length=0)] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    tools: Annotated[list[ResponseTool], Field(fail_fast=True, max_length=128)] | None = None


class ImageBody(Body):
    """POST /v1/images/generations"""

    prompt: Text
    model: Text | None = None
    n: int | None = Field(None, ge=1, le=100)
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png"] | None = None
    seed: int | None = Field(None, ge=0, lt=1 << 62)
    strategy: Annotated[dict[str, Any] | None, at_most(64)] = None
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=16)
    quality: Literal["auto"] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = None
    user: str | None = None


class EmbeddingBody(Body):
    """POST /v1/embeddings"""

    model: Text
    input: Text | Annotated[Texts, Field(min_length=1)] | Ids | ManyIds
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None


class TokenizeBody(Body):
    """POST /tokenize"""

    model: Text | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None


class DetokenizeBody(Body):
    """POST /detokenize"""

    model: Text | None = None
    tokens: Ids


def bodies(base: type[Body] = Body) -> Iterator[type[Body]]:
    """Every kind of body and of its parts."""
    for kind in base.__subclasses__():
        yield kind
        yield from bodies(kind)

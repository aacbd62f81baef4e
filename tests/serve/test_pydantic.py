"""Schemas that pydantic makes of nested, recursive and discriminated models, sent by OpenAI's own client."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from tests.serve.conftest import Served

ASKED = [{"role": "user", "content": "x"}]


class Colour(Enum):
    red = "red"
    blue = "blue"


class Inner(BaseModel):
    colour: Colour
    size: Literal[1, 2]


class Nested(BaseModel):
    one: Inner
    two: Inner | None
    pair: tuple[Literal["a"], Literal["b"]] | None = None


class Chain(BaseModel):
    kind: Literal["t"]
    after: Chain | None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Literal[9]


class Dog(BaseModel):
    kind: Literal["dog"]
    tail: bool


class Pets(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


@pytest.fixture(scope="module")
def client(long):
    with Served([long]) as one, one.client() as made:
        yield made


@pytest.mark.parametrize("model", [Nested, Chain, Pets])
def test_tools_and_answers_of_pydantic_models(client, model):
    found = 0
    how = {"model": "long", "messages": ASKED, "temperature": 1, "max_tokens": 200}
    tool = openai.pydantic_function_tool(model)
    assert "$defs" in tool["function"]["parameters"]
    for seed in range(4):
        try:
            said = client.chat.completions.parse(**how, seed=seed, tools=[tool], tool_choice="required")
            assert isinstance(said.choices[0].message.tool_calls[0].function.parsed_arguments, model)
            form = client.chat.completions.parse(**how, seed=seed, response_format=model)
            assert isinstance(form.choices[0].message.parsed, model)
            found += 1
        except openai.LengthFinishReasonError:
            continue  # a chain that went on
    assert found >= 2


def test_what_the_client_adds_to_an_answer_is_left_out_when_it_comes_back(client):
    raw, how = client.chat.completions.with_raw_response, {"model": "long", "max_tokens": 2}
    tools = {"tools": [openai.pydantic_function_tool(Pets)], "tool_choice": "required"}
    said = client.chat.completions.parse(model="long", messages=ASKED, **tools).choices[0].message
    form = client.chat.completions.parse(model="long", messages=ASKED, response_format=Pets).choices[0].message
    call = said.tool_calls[0].function
    assert isinstance(call.parsed_arguments, Pets) and isinstance(form.parsed, Pets)
    plain = {"role": "assistant", "content": form.content}
    called = {"role": "assistant", "tool_calls": [{"function": {"name": call.name, "arguments": call.arguments}}]}
    for told, bare, name in ((form, plain, "parsed"), (said, called, "tool_calls.function.parsed_arguments")):
        answer = raw.create(**how, messages=[*ASKED, told, *ASKED])
        assert answer.headers["x-left-out"] == f"messages.{name}"
        same = client.chat.completions.create(**how, messages=[*ASKED, bare, *ASKED])
        assert answer.parse().usage.prompt_tokens == same.usage.prompt_tokens


def test_a_streamed_call_of_a_model(client):
    tool = openai.pydantic_function_tool(Nested)
    how = {"model": "long", "messages": ASKED, "tools": [tool], "tool_choice": "required", "seed": 2, "temperature": 1}
    with client.chat.completions.stream(**how) as stream:
        for _ in stream:
            pass
        call = stream.get_final_completion().choices[0].message.tool_calls[0].function
    assert isinstance(call.parsed_arguments, Nested)

"""Schemas that pydantic makes of nested, recursive and discriminated models, sent by OpenAI's own client."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from tests.serve.conftest import SMALL, Served, trained

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
def client(runs):
    """Of a run whose context holds the schemas, which are long for a tokenizer of 300."""
    longer = ["data.context=2048", "model.context=2048", "schedule.steps=1", "data.tokenizer.vocabulary=300"]
    folder = trained(runs[0].parent / "long", "sft", f"data.path={runs[0].parent / 'said.jsonl'}", *longer, *SMALL)
    with Served([folder]) as one, one.client() as made:
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


def test_a_streamed_call_of_a_model(client):
    tool = openai.pydantic_function_tool(Nested)
    how = {"model": "long", "messages": ASKED, "tools": [tool], "tool_choice": "required", "seed": 2, "temperature": 1}
    with client.chat.completions.stream(**how) as stream:
        for _ in stream:
            pass
        call = stream.get_final_completion().choices[0].message.tool_calls[0].function
    assert isinstance(call.parsed_arguments, Nested)

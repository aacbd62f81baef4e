"""Objects get the listed members and no others, unless their schema says otherwise or combines schemas."""

import pytest

from sanbu.serve.closed_objects import closed

A, B = {"properties": {"a": {}}}, {"properties": {"b": {}}, "type": "object"}
SHUT = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (A, A | SHUT),
        ({"properties": {"x": A}, "required": ["x"]}, {"properties": {"x": A | SHUT}, "required": ["x"]} | SHUT),
        ({"anyOf": [A, {"type": "null"}], "title": "t"}, {"anyOf": [A | SHUT, {"type": "null"}], "title": "t"}),
        ({"$ref": "#/$defs/A", "$defs": {"A": A}}, {"$ref": "#/$defs/A", "$defs": {"A": A | SHUT}}),
        ({"items": A}, {"items": A | SHUT}),
        ({"prefixItems": [A, B]}, {"prefixItems": [A | SHUT, B | SHUT]}),
        ({"allOf": [A], "description": "d"}, {"allOf": [A | SHUT], "description": "d"}),
        ({"properties": {"allOf": A, "not": B}}, {"properties": {"allOf": A | SHUT, "not": B | SHUT}} | SHUT),
    ],
    ids=str,
)
def test_what_is_closed(schema, wanted):
    assert closed(schema) == wanted


@pytest.mark.parametrize("place", ["response_format", "tools"])
def test_an_answer_has_no_other_members(client, place):
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    how = {"response_format": form} if place == "response_format" else {"tools": tools, "tool_choice": "required"}
    asked = {"model": "talk", "messages": [{"role": "user", "content": "x"}], "n": 8, "temperature": 2, **how}
    for choice in client.chat.completions.create(**asked).choices:
        calls = choice.message.tool_calls
        assert (calls[0].function.arguments if calls else choice.message.content) == '{"a":1}'


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        A | {"additionalProperties": True},
        A | {"additionalProperties": {"type": "string"}},
        A | {"patternProperties": {"^x": {}}},
        A | {"propertyNames": {"pattern": "x"}},
        A | {"required": ["b"]},
        A | {"minProperties": 2},
        {"allOf": [A, B]},
        {"anyOf": [A, B], "properties": {"c": {}}},
        {"anyOf": [A, B], "required": ["c"]},
        {"$ref": "#/$defs/A", "anyOf": [B], "$defs": {"A": A}},
        {"$ref": "#/$defs/A", "properties": {"b": {}}, "$defs": {"A": A}},
        {"properties": {"x": {"not": A}}},
        {"if": A, "then": B},
        {"properties": {"x": {"const": A, "default": A, "enum": [A], "examples": [A]}}, "additionalProperties": True},
        A | {"required": [["a"]]},
        A | {"required": "a"},
        A | {"minProperties": "1"},
        True,
    ],
    ids=str,
)
def test_what_is_left(schema):
    assert closed(schema) == schema

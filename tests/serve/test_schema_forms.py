"""Schemas of every form that clients send: references, recursion, oneOf; compiled once, within limits."""

import asyncio
import json
import threading

import httpx
import jsonschema
import openai
import pytest

from sanbu.serve import app as api
from sanbu.serve import body_route, json_body, tokens
from sanbu.serve.grammar import Grammars
from sanbu.serve.json_schema import SchemaError, exclusive, local
from sanbu.serve.preparation import Preparation
from sanbu.serve.request import Busy

ASKED = [{"role": "user", "content": "What is 3?"}]


def record(properties, **more):
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


LIST = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
FORMS = {
    "$defs": record({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": {"enum": [1, 2]}}}),
    "definitions": record({"a": {"$ref": "#/definitions/A"}}, definitions={"A": {"enum": ["x"]}}),
    "recursive root": record({"v": {"enum": [7]}, "next": LIST}),
    "recursive definition": {
        "$ref": "#/$defs/N",
        "$defs": {"N": record({"next": {"anyOf": [{"$ref": "#/$defs/N"}, {"const": 0}]}})},
    },
    "a property as definition": record({"a": {"enum": [3]}, "b": {"$ref": "#/properties/a"}}),
    "escaped names": record({"a": {"$ref": "#/$defs/a~1b%20c"}}, **{"$defs": {"a/b c": {"const": 5}}}),
    "$id": record(
        {"a": {"$ref": "https://x.example/s.json#/$defs/A"}, "b": {"$ref": "#/$defs/A"}},
        **{"$id": "https://x.example/s.json", "$defs": {"A": {"const": "ok"}}},
    ),
    "inner $id": record(
        {"a": {"$ref": "inner.json#/$defs/A"}},
        **{"$id": "https://x.example/s.json", "$defs": {"I": {"$id": "inner.json", "$defs": {"A": {"const": 4}}}}},
    ),
    "$anchor": record({"a": {"$ref": "#here"}}, **{"$defs": {"A": {"$anchor": "here", "const": 6}}}),
    "a property named $ref": record({"$ref": {"const": 1}, "properties": {"const": {"$ref": "#/nowhere"}}}),
    "oneOf of constants": record({"a": {"oneOf": [{"const": 1}, {"const": 2}]}}),
    "oneOf of types": record({"a": {"oneOf": [{"enum": [True]}, {"enum": ["a"]}, {"type": "null"}]}}),
    "oneOf with a discriminator": record(
        {"a": {"oneOf": [record({"k": {"const": "x"}}), record({"k": {"const": "y"}})]}}
    ),
    "a tuple of an old draft": record(
        {"a": {"type": "array", "items": [{"const": 1}, {"const": "b"}], "additionalItems": False, "minItems": 2}},
        **{"$schema": "http://json-schema.org/draft-07/schema#"},
    ),
}


def tool(name, parameters):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.mark.parametrize("form", FORMS)
def test_arguments_and_answers_follow_a_schema_of_any_form(client, form):
    schema, valid = FORMS[form], 0
    how = {"model": "talk", "messages": ASKED, "max_tokens": 200, "temperature": 1}
    save = {"type": "function", "function": {"name": "save"}}
    answer = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(3):
        for choice in ("required", save):
            tools = {"tools": [tool("save", schema)], "tool_choice": choice}
            said = client.chat.completions.create(**how, **tools, seed=seed).choices[0]
            for call in said.message.tool_calls or ():  # none if it was cut off
                jsonschema.validate(json.loads(call.function.arguments), schema)
                valid += 1
        text = client.chat.completions.create(**how, seed=seed, response_format=answer).choices[0]
        if text.finish_reason == "stop":
            jsonschema.validate(json.loads(text.message.content), schema)
            valid += 1
    assert valid >= 5


def test_definitions_of_two_tools_do_not_mix(client):
    tools = [
        tool(name, record({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": {"const": value}}}))
        for name, value in (("one", 1), ("two", 2))
    ]
    found = set()
    for seed in range(12):
        how = {"model": "talk", "messages": ASKED, "temperature": 1, "seed": seed, "tools": tools}
        call = client.chat.completions.create(**how, tool_choice="required").choices[0].message.tool_calls[0].function
        found.add((call.name, call.arguments))
    assert found == {("one", '{"a":1}'), ("two", '{"a":2}')}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"$ref": "#/$defs/Noed", "$defs": {"Node": {}}}, "there is no 'Noed'; did you mean 'Node'?"),
        ({"$ref": "https://x.example/other.json"}, "allowed: references within the schema"),
        ({"$ref": "file:///etc/passwd"}, "allowed: references within the schema"),
        ({"$id": "http://x.example", "$ref": "//["}, "is not a valid URI"),
        ({"$ref": "#/enum/" + "9" * 5000, "enum": [1]}, "there is no"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf: more than one"),
        ({"enum": ["x" * 100] * 3000}, "at most 262,144"),
        ({"type": "object", "properties": {f"p{i}": {"enum": [1]} for i in range(800)}}, "too complex"),
        ({"type": "integer", "allOf": [{"multipleOf": 7919}, {"multipleOf": 104729}]}, "not supported"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_with_a_schema_is_one_line(client, schema, says):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for stream in (False, True):
        how = {"model": "talk", "messages": ASKED, "response_format": form, "max_tokens": 40}
        with pytest.raises(openai.APIError) as caught:
            list(client.chat.completions.create(**how, stream=stream))
        assert says in str(caught.value) and "coerce_one_of" not in str(caught.value)
        assert getattr(caught.value, "status_code", 400) == 400


def test_deep_schemas_are_refused_before_anything_recurses():
    deep = {}
    for _ in range(5000):
        deep = {"items": deep}
    with pytest.raises(SchemaError, match="more than 60 levels"):
        local(deep)


def test_a_schema_that_takes_long_is_given_up_and_the_next_one_works(served):
    grammars = served.service.find("talk").grammars
    words = ["".join("abc"[(i * 7 + k * k) % 3] for k in range(8)) + bin(i)[2:] for i in range(60)]
    slow = {"allOf": [{"type": "string", "pattern": f"{word}.*"} for word in words]}
    for _ in range(2):  # the second time from the cache
        with pytest.raises(Exception, match=r"takes more than 2 s|not supported"):
            grammars.schema(slow)
    assert grammars.schema({"const": 1}).guide().allowed().sum() >= 1


def test_a_schema_is_compiled_once_for_all_answers_and_requests(client, monkeypatch):
    compiled = []
    whole = Grammars._compile
    monkeypatch.setattr(Grammars, "_compile", lambda self, text: compiled.append(text) or whole(self, text))
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["only", "here"]}}}
    how = {"model": "talk", "messages": ASKED, "response_format": form, "n": 4}
    texts = [c.message.content for _ in range(2) for c in client.chat.completions.create(**how).choices]
    assert len(compiled) == 1 and set(texts) <= {'"only"', '"here"'} and len(texts) == 8


@pytest.mark.parametrize(
    ("branches", "answer"),
    [
        ([{"const": 1}, {"const": 1.0}], False),
        ([{"const": 1}, {"const": True}], True),
        ([{"enum": ["a", "b"]}, {"enum": ["b"]}], False),
        ([{"enum": ["a", "a"]}, {"enum": ["b"]}], True),
        ([{"type": "integer"}, {"type": "number"}], False),
        ([{"type": "number"}, {"type": ["string", "null"]}], True),
        ([{"type": "number", "maximum": 3}, {"type": "integer", "minimum": 4}], True),
        ([{"type": "number", "maximum": 3}, {"type": "integer", "minimum": 3}], False),
        ([{"type": "number", "exclusiveMaximum": 3}, {"type": "number", "minimum": 3}], True),
        ([{"type": "string"}, {}], False),
        ([{"type": "string"}, True], False),
        ([{"const": "a"}, {"type": "number"}], True),
    ],
    ids=str,
)
def test_which_branches_exclude_each_other(branches, answer):
    assert exclusive(branches) == exclusive(branches[::-1]) == answer


HELD = {  # what takes long for a large request: reading, checking, tokenizing, writing the answer
    "read": (body_route, "parsed", "/v1/chat/completions", {"messages": ASKED}),
    "chat": (api, "ChatCompletion", "/v1/chat/completions", {"messages": ASKED}),
    "completion": (api, "Completion", "/v1/completions", {"prompt": "x"}),
    "response": (api, "ModelResponse", "/v1/responses", {"input": "x"}),
    "embeddings": (api, "Embeddings", "/v1/embeddings", {"input": "x"}),
    "tokens": (tokens, "ids_of", "/tokenize", {"prompt": "x"}),
    "write": (json_body, "response", "/v1/chat/completions", {"messages": ASKED}),
}


@pytest.mark.parametrize("what", HELD)
def test_the_event_loop_is_free_while_a_request_is_prepared(served, monkeypatch, what):
    module, name, path, body = HELD[what]
    entered, leave, made = threading.Event(), threading.Event(), getattr(module, name)

    def held(*given):
        entered.set()
        assert leave.wait(20)
        return made(*given)

    monkeypatch.setattr(module, name, held)
    answers = []
    asked = threading.Thread(
        target=lambda: answers.append(httpx.post(served.url + path, json={"model": "talk", **body}, timeout=30))
    )
    asked.start()
    assert entered.wait(20)
    assert httpx.get(served.url + "/health", timeout=5).status_code == 200 and not answers
    leave.set()
    asked.join(20)
    assert answers[0].status_code == 200


def test_owners_take_turns():
    async def order():
        desk, done, gate = Preparation(threads=1, queue=4), [], threading.Event()
        first = asyncio.create_task(desk.run("a", lambda: gate.wait(20)))
        await asyncio.sleep(0)
        jobs = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("b", 2)]
        tasks = [asyncio.create_task(desk.run(owner, lambda job=(owner, n): done.append(job))) for owner, n in jobs]
        await asyncio.sleep(0)
        given_up = asyncio.create_task(desk.run("c", lambda: done.append("never")))
        await asyncio.sleep(0)
        given_up.cancel()
        full = [asyncio.create_task(desk.run("a", lambda: None)) for _ in range(2)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *tasks)
        assert isinstance((await asyncio.gather(*full, return_exceptions=True))[1], Busy)
        await desk.run("d", lambda: None)
        assert desk.free == 1 and not desk.waiting
        return done

    turns = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3)]
    assert asyncio.run(order()) == turns

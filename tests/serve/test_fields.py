"""No field is ignored in silence; what is wrong is one line with the field's name; nothing wrong is a 500."""

import json

import httpx
import pytest

from tests.serve.conftest import Served

ASKED = [{"role": "user", "content": "What is 3?"}]
BASES = {
    "/v1/chat/completions": {"model": "talk", "messages": ASKED, "max_tokens": 4},
    "/v1/completions": {"model": "bytes", "prompt": "x", "max_tokens": 2},
    "/v1/responses": {"model": "talk", "input": "x", "max_output_tokens": 2},
    "/v1/embeddings": {"model": "bytes", "input": "x"},
    "/v1/images/generations": {"model": "digits", "prompt": "1"},
    "/tokenize": {"model": "bytes", "prompt": "x"},
}
CHAT, TEXT, RESPONSES, EMBED, IMAGES, TOKENIZE = BASES
PARTS = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "data:"}}]
CALLS = [
    {"id": name, "type": "function", "function": {"name": "w", "arguments": f'{{"city":"{name}"}}'}}
    for name in ("c1", "c2", "c3")
]
IGNORED = {
    CHAT: ["max_token", "function_call", "guided_json", "structured_outputs", "stop_token_ids", "min_tokens",
        "ignore_eos", "best_of", "continue_final_message", "bad_words", "prompt_logprobs", "echo", "temprature",
        "reasoning_effort", "web_search_options", "__proto__", ""],
    TEXT: ["messages", "response_format", "use_beam_search", "tools", "min_tokens"],
    RESPONSES: ["top_logprobs", "stop", "seed", "prompt", "reasoning", "max_tokens"],
    EMBED: ["truncate_prompt_tokens", "task", "dimension"],
    IMAGES: ["output_compression", "style", "negative_prompt", "guidance"],
    TOKENIZE: ["text", "return_token_strs"],
}  # fmt: skip
WRONG = [
    (CHAT, {"messages": [{"role": "user", "content": PARTS}]}, "messages.0.content.1.type", "pictures"),
    (CHAT, {"stop": list("abcde")}, "stop", "given 5 items, allowed: at most 4"),
    (CHAT, {"stop": 5}, "stop", "given 5, allowed: a valid string or a valid list"),
    (CHAT, {"tool_choice": {"type": "allowed_tools"}}, "tool_choice", "the type 'allowed_tools', allowed: 'none'"),
    (CHAT, {"tool_choice": "requird"}, "tool_choice", "did you mean 'required'?"),
    (CHAT, {"messages": [{"role": "usr", "content": "x"}]}, "messages.0.role", "did you mean 'user'?"),
    (CHAT, {"messages": [{"role": "user", "content": "x", "cached": 1}]}, "messages.0.cached", "no such field"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text", "required"),
    (CHAT, {"messages": [{"role": "user", "content": 7}]}, "messages.0.content", "a valid string or a valid list"),
    (CHAT, {"messages": ASKED * 5000}, "messages", "given 5000 items, allowed: at most 4096"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "pattern"),
    (CHAT, {"tools": [{"type": "custom", "custom": {}}]}, "tools.0.type", "allowed: 'function'"),
    (CHAT, {"response_format": {"type": "json"}}, "response_format.type", "did you mean 'json_"),
    (CHAT, {"logit_bias": {"9" * 5000: 1}}, "logit_bias", "there is no token '99999999999999999999'"),
    (CHAT, {"logit_bias": {"-1": 1}}, "logit_bias", "there is no token '-1'"),
    (CHAT, {"logit_bias": {"\u0663": 1}}, "logit_bias", "there is no token"),
    (CHAT, {"max_token": 1}, "max_token", "no such field; did you mean 'max_tokens'?"),
    (CHAT, {"guided_json": {}}, "guided_json", "is not supported"),
    (CHAT, {"service_tier": "flex"}, "service_tier", "allowed: 'auto' or 'default'"),
    (TEXT, {"prompt": [1, "a"]}, "prompt.1", "given \"a\", allowed: a valid integer"),
    (TEXT, {"prompt": [[1], [-1]]}, "prompt.1.0", "greater than or equal to 0"),
    (TEXT, {"prompt": {"a": 1}}, "prompt", "a valid string or a valid list"),
    (EMBED, {"input": ["a"] * 2049}, "input", "given 2049 items, allowed: at most 2048"),
    (EMBED, {"input": [[1]] * 3000}, "input", "given 3000 items, allowed: at most 2048"),
    (RESPONSES, {"input": [{"role": "user", "content": PARTS[1:]}]}, "input.0.content.0.type", "pictures"),
    (RESPONSES, {"tool_choice": "required"}, "tool_choice", "no tools are given"),
    (RESPONSES, {"tools": [{"type": "web_search"}]}, "tools.0.type", "allowed: 'function'"),
    (RESPONSES, {"input": [{"type": "reasoning", "id": "x"}]}, "input.0.type", "'function_call_output'"),
    (RESPONSES, {"input": "x" * 9000}, "input", "allowed: 1 to 511"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}, "text.format", "text.format: "),
    (RESPONSES, {"truncation": "auto"}, "truncation", "allowed: 'disabled'"),
    (RESPONSES, {"include": ["message.output_text.logprobs"]}, "include", "given 1 items, allowed: at most 0"),
    (IMAGES, {"quality": "hd"}, "quality", "allowed: 'auto'"),
    (IMAGES, {"background": "transparent"}, "background", "allowed: 'auto' or 'opaque'"),
    (TOKENIZE, {"prompt": None}, "prompt", "give either prompt or messages"),
]  # fmt: skip


def ask(served, path, body=None, **more):
    return httpx.post(served.url + path, json={**BASES[path], **(body or {})}, timeout=30, **more)


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in IGNORED.items() for name in names])
def test_a_field_that_has_no_effect_is_refused_by_name(served, path, name):
    answer = ask(served, path, {name: 1})
    error = answer.json()["error"]
    assert answer.status_code == 400 and (error["param"] == name or not name), error
    assert error["message"].startswith(f"{name}: ") or not name
    assert ask(served, path, {name: None}).status_code == 200  # null is the same as left out


@pytest.mark.parametrize(("path", "body", "param", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_the_field_and_the_reason_are_told(served, path, body, param, says):
    answer = ask(served, path, body)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param and says in error["message"], error
    assert "\n" not in error["message"] and len(error["message"]) < 400
    assert not any(tag in error["message"] for tag in ("constrained-", "list[", "literal[", "dictionary"))


def test_fields_that_clients_send_without_effect_on_the_answer_are_taken(served):
    harmless = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "prompt_cache_key": "k"}
    plain = ask(served, CHAT).json()["choices"]
    for path in (CHAT, TEXT, RESPONSES):
        assert ask(served, path, harmless).status_code == 200
    more = {"parallel_tool_calls": True, "modalities": ["text"], "stream_options": None}
    assert ask(served, CHAT, {**harmless, **more}).json()["choices"] == plain
    said = {"role": "assistant", "content": "x", "refusal": None, "annotations": [], "audio": None, "tool_calls": None}
    assert ask(served, CHAT, {"messages": [*ASKED, said, *ASKED]}).status_code == 200
    named = ask(served, CHAT, {"messages": [{**ASKED[0], "name": "ada"}]})
    assert named.headers["x-left-out"] == "messages.name" and named.json()["choices"] == plain


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"])
def test_another_content_type_is_named(served, kind):
    answer = httpx.post(served.url + CHAT, content=b'{"model": "talk"}', headers={"content-type": kind})
    error = answer.json()["error"]["message"]
    assert answer.status_code == 400 and error == f"Content-Type: given {kind!r}, allowed: 'application/json'"


def seen(served, *results, calls=CALLS[:2]):
    """The prompt of two calls and their results, as token ids."""
    messages = [*ASKED, {"role": "assistant", "content": None, "tool_calls": calls}]
    messages += [{"role": "tool", "tool_call_id": given, "content": text} for given, text in results]
    answer = httpx.post(served.url + "/tokenize", json={"model": "talk", "messages": messages})
    return answer.json()["tokens"] if answer.status_code == 200 else answer.json()["error"]["message"]


def test_results_belong_to_the_calls_whose_id_they_have(served):
    assert seen(served, ("c1", "sun"), ("c2", "rain")) == seen(served, ("c2", "rain"), ("c1", "sun"))
    assert seen(served, ("c1", "sun"), ("c2", "rain")) != seen(served, ("c1", "rain"), ("c2", "sun"))
    assert seen(served, ("c1", "sun")) != seen(served, ("c2", "sun"))
    three = [("c3", "c"), ("c1", "a"), ("c2", "b")]
    assert seen(served, *three, calls=CALLS) == seen(served, *sorted(three), calls=CALLS)
    assert "messages.2.tool_call_id: given 'c9', allowed: 'c1', 'c2'; did you mean" in seen(served, ("c9", "x"))
    assert "a second time" in seen(served, ("c1", "x"), ("c1", "y"))
    twins = [CALLS[0], CALLS[0]]
    assert "given 'c1'" in seen(served, ("c1", "x"), calls=twins)  # two calls of one id cannot be told apart


DEEP = "[" * 5000
FAULTS = [
    (CHAT, {"messages": [*ASKED, {"role": "assistant", "content": None, "tool_calls": [
        {**CALLS[0], "function": {"name": "f", "arguments": DEEP}}]}]}, (400,)),  # too long for the context
    (CHAT, {"messages": [*ASKED, {"role": "assistant", "tool_calls": [
        {**CALLS[0], "function": {"name": "f", "arguments": '{"a":' * 99 + "1" + "}" * 99}}]}]}, (200, 400)),
    (CHAT, {"messages": [*ASKED, {"role": "assistant", "tool_calls": [
        {**CALLS[0], "function": {"name": "f", "arguments": "9" * 300}}]}]}, (200, 400)),
    (CHAT, {"strategy": {"kind": ["beam-search"]}}, (400,)),
    (CHAT, {"strategy": {"kind": {}}}, (400,)),
    (CHAT, {"strategy": {"kind": "autoregressive", "temperature": "\ud800"}}, (400,)),
    (CHAT, {"strategy": {"\ud800": 1}}, (400,)),
    (CHAT, {"strategy": {"kind": "beam-search", "beams": 20_000}}, (400,)),
    (CHAT, {"strategy": {"kind": "beam-search", "beams": 129}}, (400,)),
    (CHAT, {"strategy": {"kind": "beam-search", "beams": 64}, "n": 3}, (400,)),
    (CHAT, {"strategy": {"stop": ["x"] * 17}}, (400,)),
    (CHAT, {"stop": "x" * 2000}, (400,)),
    (CHAT, {"strategy": {"kind": "beam-search", "beams": 2}, "messages": [{"role": "user", "content": "\ud800"}]},
     (400,)),
    (TEXT, {"prompt": [256, 5000], "strategy": {"kind": "beam-search", "beams": 2}}, (400,)),
    (TEXT, {"prompt": [], "echo": True, "logprobs": 1}, (400,)),
    (TEXT, {"prompt": "\ud800"}, (400,)),
    (IMAGES, {"prompt": "\u00b2"}, (400,)),
    (IMAGES, {"prompt": "9" * 5000}, (400,)),
    (IMAGES, {"strategy": {"steps": 50_000_000}}, (400,)),
    (IMAGES, {"strategy": {"steps": 1001}}, (400,)),
    (IMAGES, {"strategy": {"kind": 5}}, (400,)),
    (EMBED, {"input": [5000]}, (400,)),
    (EMBED, {"input": [[]]}, (400,)),
    (RESPONSES, {"input": [{"role": "tool", "content": "x"}]}, (200, 400)),
    (TOKENIZE, {"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}], "prompt": None}, (200,)),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "allowed"), FAULTS, ids=lambda value: str(value)[:50])
def test_strange_values_are_no_faults_of_the_server(served, path, body, allowed):
    text = json.dumps({**BASES[path], **body})
    answer = httpx.post(served.url + path, content=text, headers={"content-type": "application/json"}, timeout=30)
    assert answer.status_code in allowed, answer.text
    if answer.status_code == 400:
        assert "\n" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"model": 1e999999}', '{"n": ' + "9" * 6000 + "}"])
def test_json_beyond_what_python_reads_is_refused(served, text):
    answer = httpx.post(served.url + CHAT, content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "answer", ['{"name":[],"arguments":{}}', '{"name":{},"arguments":1}', '{"name":null,"arguments":""}']
)
def test_an_answer_that_looks_like_a_call_is_content(served, answer):
    schema = {"const": json.loads(answer)}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tools = [{"type": "function", "function": {"name": "look"}}]
    said = ask(served, CHAT, {"response_format": form, "tools": tools, "max_tokens": 99}).json()["choices"][0]
    assert said["message"]["content"] == answer and said["finish_reason"] == "stop"


def test_limits_hold_for_a_run_served_alone(runs):
    """Lists of ids are counted, not only lists of texts."""
    with Served(runs[1:2]) as one:
        answer = httpx.post(one.url + EMBED, json={"model": "bytes", "input": [[1]] * 2049})
        assert answer.status_code == 400 and "at most 2048" in answer.text


@pytest.mark.parametrize("words", [900, 20_000])  # counted in tokens, and refused before that
def test_a_prompt_too_long_is_told_as_clients_expect(served, words):
    """LiteLLM recognises it by these words, others by the code."""
    text = "x " * words
    asked = {
        CHAT: ({"model": "talk", "messages": [{"role": "user", "content": text}]}, 512),
        RESPONSES: ({"model": "talk", "input": text}, 512),
        TEXT: ({"model": "bytes", "prompt": text}, 128),
        EMBED: ({"model": "bytes", "input": text}, 128),
    }
    for path, (body, most) in asked.items():
        error = httpx.post(served.url + path, json=body).json()["error"]
        assert f"; this model's maximum context length is {most} tokens" in error["message"]
        assert error["code"] == "context_length_exceeded" and "\n" not in error["message"]

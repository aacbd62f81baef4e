"""Every endpoint, called by the official client over a real socket."""

import base64
import io
import json

import jsonschema
import numpy as np
import openai
import pytest
import torch
from PIL import Image

from sanbu.run import Run
from sanbu.serve.weights import packed
from tests.serve.conftest import Served

ASKED = [{"role": "user", "content": "What is 3?"}]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "c": {"enum": ["red", "grün"]}},
    "required": ["n", "c"],
    "additionalProperties": False,
}


def streamed(stream):
    """Texts, finish reasons and usage of a streamed chat, with the checks that every chunk must pass."""
    texts, ends, usage, ids, roles = {}, {}, None, set(), {}
    for chunk in stream:
        ids.add(chunk.id)
        for choice in chunk.choices:
            assert "finish_reason" in choice.model_fields_set
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            roles.setdefault(choice.index, choice.delta.role)
            if choice.finish_reason:
                assert choice.index not in ends and not choice.delta.content
                ends[choice.index] = choice.finish_reason
        usage = chunk.usage or usage
    assert len(ids) == 1 and set(roles.values()) == {"assistant"}
    return texts, ends, usage


@pytest.mark.parametrize(
    "how",
    [{"temperature": 0}, {"seed": 5}, {"seed": 5, "n": 3}, {"seed": 1, "stop": ["é", "i"]}, {"seed": 2, "top_p": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("model", ["talk", "bytes"])
def test_a_chat_says_the_same_streamed_and_whole(client, model, how):
    how = {"model": model, "messages": ASKED, "max_tokens": 30, **how}
    whole = client.chat.completions.create(**how)
    texts, ends, usage = streamed(
        client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True})
    )
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert len(texts) == how.get("n", 1)
    tokens = lambda usage: (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    assert tokens(usage) == tokens(whole.usage)
    for text in texts.values():
        assert not any(stop in text for stop in how.get("stop", ()))


def test_an_answer_is_what_the_run_says_itself(client, runs):
    run = Run.open(runs[0])
    for seed in range(4):
        alone = run.generate("What is 3?", seed=seed, overrides=("strategy.max_tokens=20", "strategy.temperature=1"))
        said = client.chat.completions.create(model="talk", messages=ASKED, max_tokens=20, seed=seed, temperature=1)
        assert said.choices[0].message.content == alone


def test_without_a_temperature_an_answer_has_that_of_the_run(client, runs):
    """The recipe's strategy is greedy: any seed gives the greedy answer. The seed counts at temperature 1."""
    run = Run.open(runs[0])
    assert run.recipe.strategy.temperature == 0
    greedy = run.generate("What is 3?", overrides=("strategy.max_tokens=20", "strategy.temperature=0"))
    how = {"model": "talk", "messages": ASKED, "max_tokens": 20}
    texts = {client.chat.completions.create(**how, seed=seed).choices[0].message.content for seed in range(4)}
    assert texts == {greedy}
    warm = [client.chat.completions.create(**how, seed=seed, temperature=1) for seed in range(4)]
    assert len({said.choices[0].message.content for said in warm}) > 1


def test_choices_are_drawn_with_seeds_that_follow_each_other(client):
    how = {"model": "bytes", "prompt": "and ", "max_tokens": 12}
    several = client.completions.create(**how, n=4, seed=7).choices
    assert [one.text for one in several] == [
        client.completions.create(**how, seed=7 + i).choices[0].text for i in range(4)
    ]


@pytest.mark.parametrize("model", ["talk", "bytes"])
@pytest.mark.parametrize("stop", [None, ["i", "\N{REPLACEMENT CHARACTER}"]])
def test_the_tokens_of_logprobs_spell_the_text(client, model, stop):
    for seed in range(6):
        how = {
            "model": model,
            "messages": ASKED,
            "max_tokens": 24,
            "seed": seed,
            "logprobs": True,
            "top_logprobs": 3,
            "stop": stop,
        }
        whole = client.chat.completions.create(**how).choices[0]
        words = whole.logprobs.content
        spelt = b"".join(bytes(word.bytes) for word in words).decode("utf-8", "replace")
        assert spelt == whole.message.content if stop is None else whole.message.content.startswith(spelt)
        assert all(
            len(word.top_logprobs) == 3 and word.logprob <= word.top_logprobs[0].logprob + 1e-6 for word in words
        )
        chunks = [choice for chunk in client.chat.completions.create(**how, stream=True) for choice in chunk.choices]
        assert [word for choice in chunks if choice.logprobs for word in choice.logprobs.content] == words


def test_completions_of_texts_and_ids_with_echo(client, served):
    ids = served.service.find("bytes").encode_prompt("and ")
    assert client.post("/../tokenize", body={"model": "bytes", "prompt": "and "}, cast_to=object)["tokens"] == ids
    how = {"model": "bytes", "max_tokens": 10, "seed": 3, "logprobs": 2}
    texts = client.completions.create(prompt=["and ", "more"], **how).choices
    assert [one.index for one in texts] == [0, 1]
    alone = client.completions.create(prompt=ids, **how).choices[0]
    assert alone.text == texts[0].text and alone.logprobs.tokens == texts[0].logprobs.tokens
    assert client.completions.create(prompt=[ids], **how).choices[0].text == alone.text
    echoed = client.completions.create(model="bytes", prompt="and ", max_tokens=10, seed=3, echo=True).choices[0].text
    assert echoed == "and " + alone.text
    parts = [
        c.text
        for chunk in client.completions.create(
            model="bytes", prompt="and ", max_tokens=10, seed=3, echo=True, stream=True
        )
        for c in chunk.choices
    ]
    assert "".join(parts) == echoed
    assert alone.logprobs.text_offset[0] == 0 and len(alone.logprobs.top_logprobs) == len(alone.logprobs.tokens)


@pytest.mark.parametrize("seed", range(8))
def test_an_answer_held_to_a_schema_is_valid(client, seed):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    how = {"model": "talk", "messages": ASKED, "response_format": form, "seed": seed, "max_tokens": 120}
    said = client.chat.completions.create(**how).choices[0]
    assert said.finish_reason == "stop"
    jsonschema.validate(json.loads(said.message.content), SCHEMA)
    assert streamed(client.chat.completions.create(**how, stream=True))[0] == {0: said.message.content}


def test_what_a_schema_leaves_no_choice_about_is_guessed(client, served):
    engine = served.service.find("talk").engine
    before = engine.counts["steps"]
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    usage = client.chat.completions.create(model="talk", messages=ASKED, response_format=form, temperature=0).usage
    assert usage.completion_tokens_details.accepted_prediction_tokens > 0
    assert engine.counts["steps"] - before < usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_a_predicted_text_comes_sooner_and_changes_nothing(client, served, stream):
    """OpenAI's predicted outputs: correct, nearly correct, wrong, and given in parts."""
    how = {"model": "talk", "messages": ASKED, "max_tokens": 40, "temperature": 0, "logit_bias": {"0": -100}}
    plain = client.chat.completions.create(**how)
    said = plain.choices[0].message.content
    engine = served.service.find("talk").engine
    for text in (
        said,
        said[:10] + "!" + said[10:],
        "no such thing",
        [{"type": "text", "text": said[:8]}, {"type": "text", "text": said[8:]}],
    ):
        before = engine.counts["steps"]
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        answer = client.chat.completions.create(**how, prediction={"type": "content", "content": text}, **more)
        texts, _, usage = streamed(answer) if stream else ({0: answer.choices[0].message.content}, {}, answer.usage)
        assert texts == {0: said} and usage.completion_tokens == plain.usage.completion_tokens
        details = usage.completion_tokens_details
        assert details.accepted_prediction_tokens + engine.counts["steps"] - before >= usage.completion_tokens
        if text == said:
            assert details.accepted_prediction_tokens > 20 and engine.counts["steps"] - before < 20


def test_a_required_tool_is_called(client):
    tools = [
        {"type": "function",
            "function": {"name": name,
                "parameters": {"type": "object", "properties": {"n": {"enum": [1, 2, 30]}}, "required": ["n"],
                    "additionalProperties": False}}}
        for name in ("add", "cut")
    ]  # fmt: skip
    how = {"model": "talk", "messages": ASKED, "tools": tools, "seed": 1, "max_tokens": 120}
    for choice, names in (("required", {"add", "cut"}), ({"type": "function", "function": {"name": "cut"}}, {"cut"})):
        said = client.chat.completions.create(**how, tool_choice=choice).choices[0]
        assert said.finish_reason == "tool_calls" and said.message.content is None
        call = said.message.tool_calls[0].function
        assert call.name in names and json.loads(call.arguments)["n"] in (1, 2, 30)
        deltas = [
            d
            for chunk in client.chat.completions.create(**how, tool_choice=choice, stream=True)
            for c in chunk.choices
            for d in c.delta.tool_calls or ()
        ]
        assert deltas[0].id and deltas[0].function.name == call.name
        assert "".join(delta.function.arguments for delta in deltas) == call.arguments
    told = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [said.message.tool_calls[0].model_dump()]},
        {"role": "tool", "tool_call_id": "x", "content": "7"},
    ]
    free = client.chat.completions.create(model="talk", messages=told, tools=tools, max_tokens=8)
    assert free.choices[0].message.tool_calls is None


def test_an_answer_without_limit_goes_to_its_end_or_the_contexts(client):
    how = {"model": "talk", "messages": ASKED, "temperature": 0, "logit_bias": {"0": -100}}
    whole = client.chat.completions.create(**how)
    assert whole.usage.total_tokens == 512 and whole.choices[0].finish_reason == "length"
    short = client.chat.completions.create(**how, extra_body={"strategy": {"max_tokens": 5}})
    assert short.usage.completion_tokens == 5


def test_functions_too_long_for_the_context_are_left_out_and_that_is_said(client):
    """As Open WebUI sends them with every question; if a call is required, this is an error instead."""
    tools = [
        {
            "type": "function",
            "function": {"name": "look", "description": "word " * 900, "parameters": {"type": "object"}},
        }
    ]
    how = {"model": "talk", "messages": ASKED, "temperature": 0, "max_tokens": 8}
    plain = client.chat.completions.with_raw_response.create(**how)
    given = client.chat.completions.with_raw_response.create(**how, tools=tools)
    assert given.headers["x-left-out"] == "tools" and "x-left-out" not in plain.headers
    assert given.parse().choices[0].message.content == plain.parse().choices[0].message.content
    short = client.chat.completions.with_raw_response.create(**how, tools=[{**tools[0], "function": {"name": "look"}}])
    assert "x-left-out" not in short.headers and short.parse().usage.prompt_tokens > plain.parse().usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="allowed: 1 to 511"):
        client.chat.completions.create(**{**how, "messages": [{"role": "user", "content": "x " * 900}]}, tools=tools)
    with pytest.raises(openai.BadRequestError, match="allowed: 1 to 511"):
        client.chat.completions.create(**how, tools=tools, tool_choice="required")


def test_bias_decides_and_penalties_spread(client, served):
    token = served.service.find("bytes").encode_prompt("q")[-1]
    how = {"model": "bytes", "prompt": "and ", "max_tokens": 8, "temperature": 0}
    assert client.completions.create(**how, logit_bias={str(token): 100}).choices[0].text == "q" * 8


def test_responses_whole_and_as_events(client):
    how = {"model": "talk", "input": ASKED, "instructions": "Be short.", "max_output_tokens": 12, "temperature": 0}
    whole = client.responses.create(**how)
    events = list(client.responses.create(**how, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[0].type == "response.created" and events[-1].response.output_text == whole.output_text
    assert whole.status in ("completed", "incomplete") and whole.usage.output_tokens > 0
    form = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    jsonschema.validate(json.loads(client.responses.create(model="talk", input="x", text=form).output_text), SCHEMA)


def test_embeddings_in_both_encodings(client, served, runs):
    texts = ["and more", "大小"]
    found = client.embeddings.create(model="bytes", input=texts).data  # the client's default encoding is base64
    plain = client.embeddings.create(model="bytes", input=texts, encoding_format="float").data
    one = served.service.find("bytes")
    for text, a, b in zip(texts, found, plain, strict=True):
        assert a.embedding == pytest.approx(b.embedding, abs=1e-6)
        hidden = one.run.model(torch.tensor([one.encode_prompt(text)]), readout=lambda head, hidden: hidden)[0].mean(0)
        assert np.allclose(a.embedding, hidden / hidden.norm(), atol=1e-5)
    short = client.embeddings.create(model="bytes", input="and more", dimensions=4).data[0].embedding
    assert len(short) == 4 and np.linalg.norm(short) == pytest.approx(1, abs=1e-5)


def opened(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_pictures_whole_and_as_they_come(client, runs):
    drawn = client.images.generate(model="digits", prompt="7", n=2, extra_body={"seed": 4})
    alone = Run.open(runs[2]).generate("7", 2, 4)
    assert [opened(one.b64_json).tolist() for one in drawn.data] == [picture.tolist() for picture in alone]
    events = list(
        client.images.generate(model="digits", prompt="7", stream=True, partial_images=2, extra_body={"seed": 4})
    )
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert opened(events[-1].b64_json).tolist() == alone[0].tolist() != opened(events[0].b64_json).tolist()
    with pytest.raises(openai.BadRequestError, match="label: given 12, allowed: 0 to 9"):
        client.images.generate(model="digits", prompt="12")


def test_another_strategy_by_extra_body(client, runs):
    beams = {"kind": "beam-search", "beams": 3}
    how = {"model": "talk", "messages": ASKED, "max_tokens": 12, "extra_body": {"strategy": beams}}
    alone = Run.open(runs[0]).generate(
        "What is 3?", overrides=("strategy=beam-search", "strategy.beams=3", "strategy.max_tokens=12")
    )
    assert client.chat.completions.create(**how).choices[0].message.content == alone
    assert streamed(client.chat.completions.create(**how, stream=True))[0] == {0: alone}
    with pytest.raises(openai.BadRequestError, match="logprobs needs the strategy 'autoregressive'"):
        client.chat.completions.create(**how, logprobs=True)
    with pytest.raises(openai.BadRequestError, match="temperature: the strategy 'beam-search' has no such field"):
        client.chat.completions.create(**how, temperature=0.5)


def test_models_are_listed_and_found_with_and_without_v1(client, served):
    assert [one.id for one in client.models.list()] == ["talk", "bytes", "digits"]
    assert client.models.retrieve("digits").id == "digits"
    with openai.OpenAI(base_url=served.url, api_key="none") as bare:
        assert bare.chat.completions.create(model="talk", messages=ASKED, max_tokens=2).usage.completion_tokens <= 2
    with pytest.raises(openai.NotFoundError, match="no model 'tolk'; available: talk, bytes, digits.*talk"):
        client.chat.completions.create(model="tolk", messages=ASKED)


def test_usage_says_what_was_known_already(client):
    asked = {"model": "talk", "messages": [{"role": "user", "content": "What is 7? " * 12}], "max_tokens": 2}
    client.chat.completions.create(**asked)
    usage = client.chat.completions.create(**asked).usage
    known = usage.prompt_tokens_details.cached_tokens
    assert known % 16 == 0 and usage.prompt_tokens - 16 <= known < usage.prompt_tokens


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_runs_with_other_weights_are_served(runs, served, weights, monkeypatch):
    """Every linear layer of the blocks is converted, and the service answers like the converted model alone."""
    monkeypatch.setattr(packed, "SMALLEST", 1)
    if weights == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no products in bfloat16")
    how = {"model": "talk", "messages": ASKED, "max_tokens": 24, "temperature": 0}
    with Served(runs[:1], weights=weights) as other, other.client() as client:
        run = other.service.find("talk").run
        kinds = {
            (type(one).__name__, getattr(one, "dtype", None))
            for one in run.model.blocks.modules()
            if hasattr(one, "out_features")
        }
        assert kinds == {("Int8Linear", None) if weights == "int8" else ("PackedLinear", torch.bfloat16)}
        said = client.chat.completions.create(**how).choices[0].message.content
        alone = run.generate("What is 3?", overrides=("strategy.temperature=0.0", "strategy.max_tokens=24"))
        assert said == alone if weights == "int8" else said  # in bfloat16 rounding may depend on the batch size
        other.quiet()


def test_an_answer_goes_on_where_the_last_message_ends(client, served):
    """As in vLLM: with the same tokens before it, the rest of a greedy answer is the same."""
    how = {"model": "talk", "messages": ASKED, "temperature": 0, "logit_bias": {"0": -100}}
    whole = client.chat.completions.create(**how, max_tokens=24, logprobs=True).choices[0]
    encode, pieces, checked = served.service.find("talk").encode_text, whole.logprobs.content, 0
    for count in range(1, 12):
        begun = b"".join(bytes(one.bytes) for one in pieces[:count]).decode("utf-8", "replace")
        if whole.message.content.startswith(begun) and len(encode(begun)) == count:
            told = {**how, "messages": [*ASKED, {"role": "assistant", "content": begun}], "max_tokens": 24 - count}
            on = {"continue_final_message": True, "add_generation_prompt": False}
            rest = client.chat.completions.create(**told, extra_body=on).choices[0].message.content
            assert begun + rest == whole.message.content
            checked += 1
    assert checked >= 3
    for wrong in ({"continue_final_message": True}, {"add_generation_prompt": False}):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            client.chat.completions.create(**how, extra_body=wrong)


def test_responses_call_functions_whole_and_as_events(client):
    tool = {"type": "function", "name": "add", "strict": True, "parameters": {
        "type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"], "additionalProperties": False,
        "$defs": {"N": {"enum": [1, 2]}}}}  # fmt: skip
    how = {"model": "talk", "input": "What is 3?", "tools": [tool], "temperature": 0}
    for choice in ("required", {"type": "function", "name": "add"}):
        whole = client.responses.create(**how, tool_choice=choice)
        call = whole.output[0]
        assert call.type == "function_call" and call.name == "add" and json.loads(call.arguments)["n"] in (1, 2)
        events = list(client.responses.create(**how, tool_choice=choice, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert "".join(deltas) == call.arguments and events[-1].response.output[0].name == "add"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "7"}
    told = [{"role": "user", "content": "What is 3?"}, call.model_dump(exclude_none=True), result]
    chat = [
        {"role": "user", "content": "What is 3?"},
        {"role": "assistant", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "add", "arguments": call.arguments}}]},
        {"role": "tool", "tool_call_id": "a", "content": "7"},
    ]  # fmt: skip
    free = client.responses.create(model="talk", input=told, temperature=0, max_output_tokens=12)
    same = client.chat.completions.create(model="talk", messages=chat, temperature=0, max_tokens=12)
    assert free.output_text == same.choices[0].message.content
    assert free.usage.input_tokens == same.usage.prompt_tokens
    drawn = {**how, "temperature": 1, "max_output_tokens": 30, "tool_choice": "auto"}  # a fifth of the answers is empty
    assert any(client.responses.create(**drawn).output_text for _ in range(20))
    events = list(client.responses.create(**how, max_output_tokens=30, stream=True))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == client.responses.create(**how, max_output_tokens=30).output_text

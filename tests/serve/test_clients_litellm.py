"""LiteLLM as a client: `openai/MODEL` with `api_base`."""

import json
import os

import pytest

from tests.serve.scripted import CALL, QUESTION, RESULT, TOLD, Person, documented

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it asks for a list on the internet
litellm = pytest.importorskip("litellm", reason="pip install 'litellm<=1.82.6'")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
ASKED = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def how(url):
    return {"model": "openai/long", "api_base": url, "api_key": "none", "messages": ASKED, "num_retries": 0}


def test_whole_and_streamed(how, url):
    said = eval(documented("LiteLLM", url), {"completion": litellm.completion, "messages": ASKED})
    assert said.choices[0].message.content == TOLD and said.choices[0].finish_reason == "stop"
    chunks = list(litellm.completion(**how, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TOLD and len(chunks) > 3
    built = litellm.stream_chunk_builder(chunks)
    assert built.choices[0].message.content == TOLD and built.choices[0].finish_reason == "stop"
    assert built.usage.completion_tokens == said.usage.completion_tokens > 0
    assert built.usage.prompt_tokens == said.usage.prompt_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_and_its_result(how, stream):
    said = litellm.completion(**how, tools=TOOLS, stream=stream)
    said = litellm.stream_chunk_builder(list(said)) if stream else said
    assert said.choices[0].finish_reason == "tool_calls" and not said.choices[0].message.content
    (call,) = said.choices[0].message.tool_calls
    assert call.function.name == "weather" and json.loads(call.function.arguments) == json.loads(CALL)["arguments"]
    result = {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": RESULT}
    how["messages"] = [*ASKED, said.choices[0].message, result]
    assert litellm.completion(**how, tools=TOOLS).choices[0].message.content == TOLD


def test_a_form(how):
    said = litellm.completion(**how, response_format=Person, seed=1)
    Person.model_validate_json(said.choices[0].message.content)
    chunks = litellm.completion(**how, response_format=Person, seed=1, stream=True)
    assert litellm.stream_chunk_builder(list(chunks)).choices[0].message.content == said.choices[0].message.content


def test_errors(how):
    with pytest.raises(litellm.BadRequestError, match="temperature: given 3"):
        litellm.completion(**how, temperature=3)
    with pytest.raises(litellm.NotFoundError, match="no model 'lung'"):
        litellm.completion(**{**how, "model": "openai/lung"})
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**{**how, "messages": [{"role": "user", "content": "x y " * 3000}]})


def test_other_endpoints(how):
    less = {name: how[name] for name in ("model", "api_base", "api_key")}
    assert litellm.text_completion(**less, prompt="x", max_tokens=40).choices[0].text == TOLD
    assert len(litellm.embedding(**less, input=["a", "b"]).data) == 2
    assert litellm.responses(**less, input=QUESTION).output[0].content[0].text == TOLD

"""LlamaIndex as a client: `OpenAILike`."""

import openai
import pytest

from tests.serve.scripted import QUESTION, RESULT, TOLD, Person, documented

OpenAILike = pytest.importorskip(
    "llama_index.llms.openai_like", reason="pip install llama-index-llms-openai-like"
).OpenAILike
core = pytest.importorskip("llama_index.core")
llms = pytest.importorskip("llama_index.core.llms")
tools = pytest.importorskip("llama_index.core.tools")


@pytest.fixture
def how(url):
    return {**eval(documented("LlamaIndex", url).replace("OpenAILike", "dict")), "max_retries": 0}


ASKED = [llms.ChatMessage(role="user", content=QUESTION)]


def weather(city: str) -> str:
    """The weather in a city."""
    return RESULT


def test_whole_and_streamed(how):
    model = OpenAILike(**how)
    assert model.complete(QUESTION).text == TOLD and model.chat(ASKED).message.content == TOLD
    parts = list(model.stream_chat(ASKED))
    assert "".join(part.delta or "" for part in parts) == TOLD == parts[-1].message.content and len(parts) > 3
    text = OpenAILike(**{**how, "is_chat_model": False, "is_function_calling_model": False, "max_tokens": 40})
    assert text.complete("x").text == TOLD and "".join(part.delta for part in text.stream_complete("x")) == TOLD


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_and_its_result(how, stream):
    model, tool = OpenAILike(**how), tools.FunctionTool.from_defaults(weather)
    if stream:
        *_, said = model.stream_chat_with_tools([tool], chat_history=ASKED)
    else:
        said = model.chat_with_tools([tool], chat_history=ASKED)
    (call,) = model.get_tool_calls_from_response(said)
    assert call.tool_name == "weather" and call.tool_kwargs == {"city": "Rome"}
    result = llms.ChatMessage(role="tool", content=RESULT, additional_kwargs={"tool_call_id": call.tool_id})
    done = model.chat_with_tools([tool], chat_history=[*ASKED, said.message, result])
    assert done.message.content == TOLD


@pytest.mark.parametrize("how_else", [{}, {"should_use_structured_outputs": True}])
def test_a_form(how, how_else):
    model = OpenAILike(**how, **how_else)
    assert isinstance(model.structured_predict(Person, core.PromptTemplate(QUESTION)), Person)


def test_errors(how):
    with pytest.raises(openai.BadRequestError, match="top_p: given 3"):
        OpenAILike(**how, additional_kwargs={"top_p": 3}).chat(ASKED)
    with pytest.raises(openai.NotFoundError, match="no model 'lung'"):
        OpenAILike(**{**how, "model": "lung"}).chat(ASKED)

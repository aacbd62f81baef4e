"""Pydantic AI as a client: an agent with a function, outputs of a model, streaming, errors."""

import asyncio

import pytest

from tests.serve.scripted import QUESTION, RESULT, TOLD, Person, documented

pydantic_ai = pytest.importorskip("pydantic_ai", reason="pip install 'pydantic-ai-slim[openai]'")
openai_models = pytest.importorskip("pydantic_ai.models.openai")
OpenAIProvider = pytest.importorskip("pydantic_ai.providers.openai").OpenAIProvider


@pytest.fixture
def model(url):
    names = {"OpenAIChatModel": openai_models.OpenAIChatModel, "OpenAIProvider": OpenAIProvider}
    return eval(documented("Pydantic AI", url), names)


def weather_agent(model):
    agent = pydantic_ai.Agent(model)
    asked = []

    @agent.tool_plain
    def weather(city: str) -> str:
        asked.append(city)
        return RESULT

    return agent, asked


def test_a_function_is_called_and_its_result_read(model):
    agent, asked = weather_agent(model)
    done = agent.run_sync(QUESTION)
    assert done.output == TOLD and asked == ["Rome"] and done.usage.output_tokens > 0


async def streamed(agent):
    async with agent.run_stream(QUESTION) as run:
        return [part async for part in run.stream_text(delta=True, debounce_by=None)], run.usage


def test_the_same_streamed(model):
    agent, asked = weather_agent(model)
    parts, usage = asyncio.run(streamed(agent))
    assert "".join(parts) == TOLD and len(parts) > 3 and asked == ["Rome"] and usage.output_tokens > 0


@pytest.mark.parametrize("output", ["ToolOutput", "NativeOutput"])
def test_an_output_of_a_model(model, output):
    agent = pydantic_ai.Agent(model, output_type=getattr(pydantic_ai, output)(Person))
    assert isinstance(agent.run_sync(QUESTION).output, Person)


def test_errors(model, url):
    agent = pydantic_ai.Agent(model, model_settings={"temperature": 3})
    with pytest.raises(pydantic_ai.exceptions.ModelHTTPError, match="temperature: given 3") as caught:
        agent.run_sync(QUESTION)
    assert caught.value.status_code == 400
    other = openai_models.OpenAIChatModel("lung", provider=OpenAIProvider(base_url=url, api_key="none"))
    with pytest.raises(pydantic_ai.exceptions.ModelHTTPError, match="no model 'lung'"):
        pydantic_ai.Agent(other).run_sync(QUESTION)

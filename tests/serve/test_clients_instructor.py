"""Instructor as a client: answers of a pydantic model, in each of its modes that need no other wording."""

import openai
import pytest

from tests.serve.scripted import QUESTION, Person, documented

instructor = pytest.importorskip("instructor", reason="pip install instructor")

HOW = {"model": "long", "messages": [{"role": "user", "content": QUESTION}], "max_retries": 0}


NAMES = {"OpenAI": openai.OpenAI, "from_openai": instructor.from_openai, "Mode": instructor.Mode}


def client(url, mode):
    return eval(documented("Instructor", url).replace("JSON_SCHEMA", mode), NAMES)


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "RESPONSES_TOOLS"])
def test_an_answer_of_a_model(url, mode):
    made = client(url, mode).chat.completions.create(**HOW, response_model=Person)
    assert isinstance(made, Person)


def test_a_partial_answer(url):
    parts = list(client(url, "JSON_SCHEMA").chat.completions.create_partial(**HOW, response_model=Person))
    assert len(parts) > 1 and Person.model_validate(parts[-1].model_dump())


def test_errors(url):
    with pytest.raises(Exception, match="temperature: given 3"):
        client(url, "TOOLS").chat.completions.create(**HOW, response_model=Person, temperature=3)

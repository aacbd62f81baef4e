"""LangChain's OpenAI client works against the service; it and OpenAI's own find it as the page says."""

import openai
import pytest

from tests.serve.scripted import documented

langchain = pytest.importorskip("langchain_openai")

PERSON = {
    "title": "person",
    "description": "somebody",
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["cat", "dog"]}},
    "required": ["age", "kind"],
    "additionalProperties": False,
}


@pytest.fixture
def model(served):
    where = eval(documented("LangChain", served.url + "/v1").replace("ChatOpenAI", "dict"))
    yield langchain.ChatOpenAI(**{**where, "model": "talk"}, temperature=0, max_tokens=60, max_retries=0)
    served.quiet()


def test_openais_client_finds_the_server_as_the_page_says(served):
    with eval(documented("openai", served.url + "/v1"), {"OpenAI": openai.OpenAI}) as client:
        assert client.models.list().data[0].id == "talk"


def test_a_question_whole_in_pieces_and_several_at_once(model):
    whole = model.invoke("What is 3?")
    assert (
        whole.content
        and whole.usage_metadata["output_tokens"] > 0
        and whole.response_metadata["finish_reason"] in ("stop", "length")
    )
    pieces = list(model.stream("What is 3?", stream_usage=True))
    assert "".join(piece.content for piece in pieces) == whole.content
    assert (
        sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata)
        == whole.usage_metadata["output_tokens"]
    )
    assert model.batch(["What is 3?", "What is 4?"])[0].content == whole.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_answers_of_a_form(model, method):
    found = model.with_structured_output(PERSON, method=method).invoke("Who?")
    assert 0 <= found["age"] <= 99 and found["kind"] in ("cat", "dog")


def test_embeddings(served):
    embeddings = langchain.OpenAIEmbeddings(
        model="bytes", base_url=served.url + "/v1", api_key="none", check_embedding_ctx_length=False
    )
    one, two = embeddings.embed_documents(["a", "b"])
    assert len(one) == len(two) == 16 and one != two and embeddings.embed_query("a") == pytest.approx(one, abs=1e-5)

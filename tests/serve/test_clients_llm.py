"""`llm`, the command line tool, with the model described in its file extra-openai-models.yaml."""

import json

import pytest
from click.testing import CliRunner

from tests.serve.scripted import QUESTION, RESULT, TOLD, documented

command_line = pytest.importorskip("llm.cli", reason="pip install llm").cli


@pytest.fixture
def llm(url, tmp_path):
    """Runs `llm prompt`."""

    def run(*words, model="long"):
        models = documented("llm", url).replace("long", model)
        (tmp_path / "extra-openai-models.yaml").write_text(models)
        words = ["prompt", "-m", "sanbu", "--key", "none", "--no-log", *words]
        return CliRunner().invoke(command_line, words, env={"LLM_USER_PATH": str(tmp_path)})

    return run


@pytest.mark.parametrize("words", [(), ("--no-stream",)])
def test_an_answer(llm, words):
    assert llm(QUESTION, *words).stdout == TOLD + "\n"


@pytest.mark.parametrize("words", [(), ("--no-stream",)])
def test_a_function(llm, words):
    code = f"def weather(city: str) -> str:\n    return {RESULT!r} if city == 'Rome' else ''\n"
    assert llm(QUESTION, "--functions", code, *words).stdout == TOLD + "\n"


def test_a_form(llm):
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}}}
    said = llm(QUESTION, "--schema", json.dumps(schema | {"required": ["age"]})).stdout
    assert list(json.loads(said)) == ["age"] and 0 <= json.loads(said)["age"] <= 99


def test_errors(llm):
    done = llm(QUESTION, model="lung")
    assert done.exit_code == 1 and "no model 'lung'" in done.stderr

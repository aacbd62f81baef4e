"""`sanbu generate` of a run of chat answers as `sanbu chat` does; --raw continues the text."""

import contextlib
import json

import pytest
import torch
from typer.testing import CliRunner

from sanbu.cli.main import app
from sanbu.codecs.text import Plain
from sanbu.config import ConfigError
from sanbu.run import Run
from sanbu.serve.weights.int8 import Int8Linear
from sanbu.serve.weights.packed import PackedLinear
from tests.cli.common import chat_run

QUESTION = "What is 3 + 4?"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return chat_run(tmp_path_factory.mktemp("chat"))


def sanbu(*arguments):
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_an_answer_stands_alone_on_its_line(run):
    answer = run.generate(QUESTION, seed=5)
    said = sanbu("generate", run.folder, "-p", QUESTION, "--seed", 5)
    assert said == answer + "\n" and answer
    assert sanbu("chat", run.folder, "-p", QUESTION, "--seed", 5) == said
    assert sanbu("chat", run.folder, run.folder, "-p", QUESTION).endswith("┘\n")


def test_an_answer_follows_the_chat_template(run):
    """The tokens that are drawn from are those of a user turn, and with --raw those of a text."""
    codec = run.codec
    asked, text = codec.template.ask([{"role": "user", "content": QUESTION}]), codec.document_ids(QUESTION)
    assert codec.condition(QUESTION, 1)["tokens"].tolist() == [asked] != [text]
    assert codec.condition(Plain(QUESTION), 1)["tokens"].tolist() == [text]
    assert codec.condition(Plain(""), 1)["tokens"].tolist() == [codec.document_ids("")]
    assert codec.condition([QUESTION, Plain(QUESTION)], 1)["length"].tolist() == [len(asked), len(text)]


def test_raw_continues_the_text(run):
    text = run.generate(Plain(QUESTION), seed=5)
    assert sanbu("generate", run.folder, "-p", QUESTION, "--seed", 5, "--raw") == QUESTION + text + "\n"
    assert text != run.generate(QUESTION, seed=5)
    assert sanbu("generate", run.folder, "--raw") == run.generate(Plain("")) + "\n"


def test_several_answers_files_and_json_hold_answers_alone(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    answers = run.generate(QUESTION, n=2)
    said = sanbu("generate", run.folder, "-p", QUESTION, "-n", 2)
    assert said == answers[0] + "\n" + 60 * "-" + "\n" + answers[1] + "\n"
    found = json.loads(sanbu("generate", run.folder, "-p", QUESTION, "-n", 2, "--json"))
    assert found == {"run": str(run.folder), "prompt": QUESTION, "samples": answers}
    raw = json.loads(sanbu("generate", run.folder, "-p", QUESTION, "--raw", "--json"))
    assert raw["samples"] == [run.generate(Plain(QUESTION))] and raw["prompt"] == QUESTION
    sanbu("generate", run.folder, "-p", QUESTION, "-n", 2, "--out", tmp_path / "out")
    assert [(tmp_path / "out" / f"000{number}.txt").read_text() for number in (0, 1)] == answers


def test_samples_are_the_same_in_parts(run, monkeypatch, capsys):
    """Many samples are drawn some at a time; rows that are done count as whole ones in the progress."""
    answers = run.generate([QUESTION, "What is 1 + 1?"], n=4)
    told = []

    @contextlib.contextmanager
    def progress(what, total):
        yield told.append

    monkeypatch.setattr("sanbu.strategies.strategy.StrategyConfig.at_once", 3)
    monkeypatch.setattr("sanbu.run.progress_rows", progress)
    assert run.generate([QUESTION, "What is 1 + 1?"], n=4) == answers and len(answers) == 8
    assert sum(told) == pytest.approx(8) and min(told) >= 0 and len(told) > 6
    with pytest.raises(ConfigError, match="seed: given"):
        run.generate(QUESTION, n=8, seed=2**63 - 4)


@pytest.mark.parametrize("verb", ["generate", "chat"])
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_weights_are_converted_before_drawing(run, verb, weights, monkeypatch):
    """A wrong format is refused; the others reach the layers, as in sanbu serve."""
    done = CliRunner().invoke(app, [verb, str(run.folder), "-p", "x", "--weights", weights + "x"])
    assert isinstance(done.exception, ConfigError) and f"did you mean '{weights}'?" in str(done.exception)
    if weights == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no products in bfloat16")
    monkeypatch.setattr("sanbu.serve.weights.packed.SMALLEST", 1)
    met, plain = [], Run.drawing
    monkeypatch.setattr(
        Run, "drawing", lambda self, *given, **more: (met.append(self.model), plain(self, *given, **more))[1]
    )
    assert sanbu(verb, run.folder, "-p", QUESTION, "--weights", weights)
    kind = {"bfloat16": PackedLinear, "int8": Int8Linear}[weights]
    assert any(type(layer) is kind for layer in met[0].modules())


def test_weights_of_a_server_are_its_own():
    done = CliRunner().invoke(app, ["chat", "http://localhost:9", "-p", "x", "--weights", "int8"])
    assert isinstance(done.exception, ConfigError) and "is a server" in str(done.exception)


def test_a_text_run_still_prints_what_it_continues(run, tmp_path):
    import shutil

    folder = shutil.copytree(run.folder, tmp_path / "text")
    about = json.loads((folder / "recipe.json").read_text())
    about["format"], about["recipe"]["data"] = 1, {"kind": "text", "tokenizer": {"kind": "byte"}, "context": 96}
    (folder / "recipe.json").write_text(json.dumps(about))
    text = Run.open(folder).generate("line ", max_tokens=4)
    for raw in ((), ("--raw",)):
        said = sanbu("generate", folder, "-p", "line ", "strategy.max_tokens=4", *raw)
        assert said == "line " + text + "\n"


def test_raw_is_refused_for_pictures(tmp_path):
    import sanbu as library

    changes = ("model.width=16", "model.layers=1", "machine.threads=1")
    recipe = library.recipes.flow().change(*changes, steps=1, batch=4, evaluate_every=0, sample_every=0)
    run = library.train(recipe, tmp_path / "run", watchers=[])
    done = CliRunner().invoke(app, ["generate", str(run.folder), "--raw"])
    assert isinstance(done.exception, ConfigError) and "--raw" in str(done.exception)
    halved = CliRunner().invoke(app, ["generate", str(run.folder), "--weights", "int8"])
    assert isinstance(halved.exception, ConfigError) and "is a 'skip-perceptron'; only transformers have it" in str(
        halved.exception
    )
    assert "draws pictures" in str(done.exception)
